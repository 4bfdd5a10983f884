-- The write carries its condition and its fence: the row must still be, byte for byte, the one that was decided on.
UPDATE dalsegno_session
SET head = ?, epoch = ?, owner = ?, attempt = ?, ready_at = ?, since = ?, status = ?, user = ?, state = ?
WHERE n = ? AND head = ? AND epoch = ? AND owner IS ? AND state IS ?
