-- The write carries its conditions: an idle session that stands where it was read to, and has no shelf.
UPDATE dalsegno_session SET shelf = ?
WHERE tenant = ? AND id = ? AND head = ? AND epoch = ? AND owner IS NULL AND status = 0 AND shelf IS NULL
RETURNING n
