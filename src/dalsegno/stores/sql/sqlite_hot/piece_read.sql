SELECT body FROM dalsegno_piece WHERE step = ? AND until > ? ORDER BY at
