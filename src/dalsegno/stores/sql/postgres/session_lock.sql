-- As session_find; nobody else writes the row until the transaction ends. What is known must be asked for after that.
-- A replica that stops or vanishes now does not keep the session from the others for as long as a tool may take.
SELECT s.n, s.head, s.epoch, s.owner, s.attempt, s.since, s.state,
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    set_config('idle_in_transaction_session_timeout', '2s', true)
FROM dalsegno_session AS s
WHERE s.tenant = %(tenant)s AND s.id = %(id)s::uuid
FOR UPDATE
