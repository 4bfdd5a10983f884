DELETE FROM dalsegno_event WHERE id > ? AND id <= ?
