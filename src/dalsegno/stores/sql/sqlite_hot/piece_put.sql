INSERT OR REPLACE INTO dalsegno_piece (step, at, until, body) VALUES (?, ?, ?, ?)
