-- The writes carry their conditions and their fences: a row must still be, byte for byte, the one that was decided on,
-- and the digest `absent` still unknown. What goes with a session is written if its row was. The first of a digest stays.
WITH decided AS (
    SELECT * FROM unnest(
        %(n)s, %(head)s, %(epoch)s, %(owner)s, %(attempt)s, %(ready_at)s, %(since)s, %(status)s, %(user)s, %(state)s,
        %(was_head)s, %(was_epoch)s, %(was_owner)s, %(was_state)s, %(absent)s
    ) AS d (
        n, head, epoch, owner, attempt, ready_at, since, status, "user", state,
        was_head, was_epoch, was_owner, was_state, absent
    )
), session AS (
    UPDATE dalsegno_session AS s
    SET head = d.head, epoch = d.epoch, owner = d.owner, attempt = d.attempt, ready_at = d.ready_at, since = d.since,
        status = d.status, "user" = d."user", state = d.state
    FROM decided AS d
    WHERE s.n = d.n AND s.head = d.was_head AND s.epoch = d.was_epoch
        AND s.owner IS NOT DISTINCT FROM d.was_owner AND s.state IS NOT DISTINCT FROM d.was_state
        AND NOT EXISTS (SELECT FROM dalsegno_key AS k WHERE k.session = d.n AND k.digest = d.absent)
    RETURNING s.n
), event AS (
    INSERT INTO dalsegno_event (session, seq, kind, turn, at, crc, body)
    SELECT e.session, e.seq, e.kind, e.turn, e.at, e.crc, e.body
    FROM session
    JOIN unnest(
        %(event_session)s, %(event_seq)s, %(event_kind)s, %(event_turn)s, %(event_at)s, %(event_crc)s, %(event_body)s
    ) AS e (session, seq, kind, turn, at, crc, body) ON e.session = session.n
), key AS (
    INSERT INTO dalsegno_key (session, digest, fingerprint, seq, turn, status)
    SELECT k.session, k.digest, k.fingerprint, k.seq, k.turn, k.status
    FROM session
    JOIN unnest(
        %(key_session)s, %(key_digest)s, %(key_fingerprint)s, %(key_seq)s, %(key_turn)s, %(key_status)s
    ) AS k (session, digest, fingerprint, seq, turn, status) ON k.session = session.n
    ON CONFLICT DO NOTHING
)
SELECT (SELECT array_agg(n) FROM session), (extract(epoch FROM clock_timestamp()) * 1000)::bigint
