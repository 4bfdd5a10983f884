INSERT INTO dalsegno_event (id, kind, turn, at, crc, body) VALUES (?, ?, ?, ?, ?, ?)
