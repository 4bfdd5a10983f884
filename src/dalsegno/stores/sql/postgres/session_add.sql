-- A session that nobody else has added. The first of a digest stays.
WITH session AS (
    INSERT INTO dalsegno_session
        (head, epoch, owner, attempt, ready_at, since, status, "user", state, tenant, id)
    VALUES (
        %(head)s, %(epoch)s, %(owner)s, %(attempt)s, %(ready_at)s, %(since)s, %(status)s, %(user)s, %(state)s,
        %(tenant)s, %(id)s::uuid
    )
    ON CONFLICT DO NOTHING
    RETURNING n
), event AS (
    INSERT INTO dalsegno_event (session, seq, kind, turn, at, crc, body)
    SELECT session.n, e.seq, e.kind, e.turn, e.at, e.crc, e.body
    FROM session
    CROSS JOIN unnest(
        %(event_seq)s, %(event_kind)s, %(event_turn)s, %(event_at)s, %(event_crc)s, %(event_body)s
    ) AS e (seq, kind, turn, at, crc, body)
), key AS (
    INSERT INTO dalsegno_key (session, digest, fingerprint, seq, turn, status)
    SELECT session.n, k.digest, k.fingerprint, k.seq, k.turn, k.status
    FROM session
    CROSS JOIN unnest(
        %(key_digest)s, %(key_fingerprint)s, %(key_seq)s, %(key_turn)s, %(key_status)s
    ) AS k (digest, fingerprint, seq, turn, status)
    ON CONFLICT DO NOTHING
)
SELECT (SELECT n FROM session), (extract(epoch FROM clock_timestamp()) * 1000)::bigint
