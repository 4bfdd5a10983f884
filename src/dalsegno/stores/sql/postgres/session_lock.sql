-- As session_find; nobody else writes the row until the transaction ends. What is known must be asked for after that.
SELECT s.n, s.head, s.epoch, s.owner, s.attempt, s.since, s.state,
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint
FROM dalsegno_session AS s
WHERE s.tenant = %(tenant)s AND s.id = %(id)s::uuid
FOR UPDATE
