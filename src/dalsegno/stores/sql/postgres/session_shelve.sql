-- The write carries its conditions: an idle session that stands where it was read to, and has no shelf.
WITH shelved AS (
    UPDATE dalsegno_session SET shelf = %(shelf)s
    WHERE tenant = %(tenant)s AND id = %(id)s::uuid AND head = %(head)s AND epoch = %(epoch)s
        AND owner IS NULL AND status = 0 AND shelf IS NULL
    RETURNING n
), gone AS (
    DELETE FROM dalsegno_event WHERE session = (SELECT n FROM shelved) AND seq <= %(head)s
)
SELECT count(*) FROM shelved
