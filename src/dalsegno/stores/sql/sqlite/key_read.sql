SELECT digest, fingerprint, seq, turn, status FROM dalsegno_key WHERE session = ?
