WITH part AS (
    SELECT digest FROM dalsegno_key WHERE session = %(n)s LIMIT %(limit)s
), gone AS (
    DELETE FROM dalsegno_key WHERE session = %(n)s AND digest IN (SELECT digest FROM part) RETURNING digest
)
SELECT count(*) FROM gone
