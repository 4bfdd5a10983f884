-- The first of a digest stays.
INSERT INTO dalsegno_key (session, digest, fingerprint, seq, turn, status) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
