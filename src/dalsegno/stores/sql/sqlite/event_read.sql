SELECT id, kind, turn, at, crc, body FROM dalsegno_event WHERE id > ? AND id <= ? ORDER BY id LIMIT ?
