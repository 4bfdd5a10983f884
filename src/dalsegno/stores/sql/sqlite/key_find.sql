SELECT fingerprint, seq, turn, status FROM dalsegno_key WHERE session = ? AND digest = ?
