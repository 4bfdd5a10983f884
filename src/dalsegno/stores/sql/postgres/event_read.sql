-- The row, and its events after a number: of one moment, so they are one prefix.
SELECT s.head, e.seq, e.kind, e.turn, e.at, e.crc, e.body, s.shelf, s.status
FROM dalsegno_session AS s
LEFT JOIN LATERAL (
    SELECT * FROM dalsegno_event
    WHERE session = s.n AND seq > %(after)s AND seq <= s.head ORDER BY seq LIMIT %(limit)s
) AS e ON true
WHERE s.tenant = %(tenant)s AND s.id = %(id)s::uuid
ORDER BY e.seq
