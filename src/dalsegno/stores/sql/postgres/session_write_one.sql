-- `session_write` for one session, whose values are no columns: half of the time.
WITH session AS (
    UPDATE dalsegno_session AS s
    SET head = %(head)s, epoch = %(epoch)s, owner = %(owner)s, attempt = %(attempt)s, ready_at = %(ready_at)s,
        since = %(since)s, status = %(status)s, "user" = %(user)s, state = %(state)s
    WHERE s.n = %(n)s AND s.head = %(was_head)s AND s.epoch = %(was_epoch)s
        AND s.owner IS NOT DISTINCT FROM %(was_owner)s AND s.state IS NOT DISTINCT FROM %(was_state)s
        AND NOT EXISTS (SELECT FROM dalsegno_key AS k WHERE k.session = %(n)s AND k.digest = %(absent)s)
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
SELECT (SELECT n FROM session), (extract(epoch FROM clock_timestamp()) * 1000)::bigint
