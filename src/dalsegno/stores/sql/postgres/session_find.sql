-- The row and what is known under a digest, of one moment; and the clock, also when there is no such session.
SELECT s.n, s.head, s.epoch, s.owner, s.attempt, s.since, s.state,
    k.fingerprint, k.seq, k.turn, k.status,
    (extract(epoch FROM clock) * 1000)::bigint
FROM clock_timestamp() AS clock
LEFT JOIN dalsegno_session AS s ON s.tenant = %(tenant)s AND s.id = %(id)s::uuid
LEFT JOIN dalsegno_key AS k ON k.session = s.n AND k.digest = %(digest)s
