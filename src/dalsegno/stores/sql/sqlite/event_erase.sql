DELETE FROM dalsegno_event WHERE id IN (
    SELECT id FROM dalsegno_event WHERE id > ? AND id < ? ORDER BY id LIMIT ?
)
