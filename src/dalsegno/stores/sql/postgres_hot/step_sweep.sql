-- Some of what has expired, or comes from the future of a clock that was set back. Who is being written is left alone.
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS clock
), past AS (
    SELECT tenant, id FROM dalsegno_step WHERE expires <= (SELECT clock FROM moment)
    LIMIT 100 FOR UPDATE SKIP LOCKED
), future AS (
    SELECT tenant, id FROM dalsegno_step WHERE expires > (SELECT clock FROM moment) + %(ttl)s
    LIMIT 100 FOR UPDATE SKIP LOCKED
), old AS (
    SELECT * FROM past UNION ALL SELECT * FROM future
), gone AS (
    DELETE FROM dalsegno_step AS s USING old WHERE s.tenant = old.tenant AND s.id = old.id
    RETURNING n
)
DELETE FROM dalsegno_piece USING gone WHERE step = gone.n
