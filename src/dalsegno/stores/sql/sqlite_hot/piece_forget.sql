DELETE FROM dalsegno_piece WHERE step = ?
