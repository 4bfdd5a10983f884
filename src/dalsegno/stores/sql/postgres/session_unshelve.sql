WITH session AS (
    UPDATE dalsegno_session SET shelf = NULL
    WHERE tenant = %(tenant)s AND id = %(id)s::uuid AND shelf = %(shelf)s AND status < 3
    RETURNING n
)
INSERT INTO dalsegno_event (session, seq, kind, turn, at, crc, body)
SELECT session.n, e.seq, e.kind, e.turn, e.at, e.crc, e.body
FROM session
CROSS JOIN unnest(
    %(event_seq)s, %(event_kind)s, %(event_turn)s, %(event_at)s, %(event_crc)s, %(event_body)s
) AS e (seq, kind, turn, at, crc, body)
