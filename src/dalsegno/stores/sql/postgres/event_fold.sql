-- All events up to a number, and where they are if they are not here: of one moment.
SELECT e.seq, e.kind, e.turn, e.at, e.crc, e.body, s.shelf
FROM dalsegno_session AS s
LEFT JOIN LATERAL (SELECT * FROM dalsegno_event WHERE session = s.n AND seq <= %(head)s) AS e ON true
WHERE s.n = %(n)s
ORDER BY e.seq
