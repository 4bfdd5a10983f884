WITH part AS (
    SELECT seq FROM dalsegno_event WHERE session = %(n)s AND seq < %(head)s ORDER BY seq LIMIT %(limit)s
), gone AS (
    DELETE FROM dalsegno_event WHERE session = %(n)s AND seq IN (SELECT seq FROM part) RETURNING seq
)
SELECT count(*) FROM gone
