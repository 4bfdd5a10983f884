-- Fences (`act` 0), publications (1) and clears (2) of different sessions, each as it would be alone.
-- What is held is locked first: what is decided follows from the rows as they are. A step that has expired, or was
-- touched in the future of a clock that was set back, counts as empty and unfenced.
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS clock
), given AS (
    SELECT * FROM unnest(%(tenant)s, %(id)s, %(epoch)s, %(act)s, %(base)s, %(at)s, %(until)s, %(body)s) WITH ORDINALITY
        AS g (tenant, id, epoch, act, base, at, until, body, nth)
), held AS MATERIALIZED (
    SELECT g.*, s.n, s.run, s.expires, s.ttl,
        s.epoch AS was_epoch, s.author AS was_author, s.base AS was_base, s.until AS was_until, s.size AS was_size
    FROM given AS g JOIN dalsegno_step AS s ON s.tenant = g.tenant AND s.id = g.id
    FOR UPDATE OF s
), known AS (
    SELECT held.*, clock, expires > clock AND expires - ttl <= clock AS alive FROM held CROSS JOIN moment
    UNION ALL
    SELECT g.*, nextval('dalsegno_step_n'), -1, NULL, NULL, 0, 0, 0, 0, 0, clock, false
    FROM given AS g CROSS JOIN moment
    WHERE g.act <> 2 AND NOT EXISTS (SELECT FROM dalsegno_step AS s WHERE s.tenant = g.tenant AND s.id = g.id)
), judged AS (
    SELECT *,
        alive AND epoch < was_epoch AS stale,
        act = 2 OR NOT alive OR act = 1 AND (
            base > was_base
            OR epoch > was_author AND NOT (epoch = was_epoch AND base = was_base AND at = was_until)
        ) AS emptied
    FROM known
), begun AS (
    SELECT *,
        run + emptied::integer AS new_run,
        CASE WHEN act = 1 THEN epoch WHEN alive THEN was_author ELSE 0 END AS new_author,
        CASE WHEN act = 1 AND emptied THEN base WHEN alive THEN was_base ELSE 0 END AS new_base,
        CASE WHEN emptied THEN 0 ELSE was_until END AS old_until,
        CASE WHEN emptied THEN 0 ELSE was_size END AS old_size
    FROM judged
), decided AS MATERIALIZED (
    SELECT *,
        NOT stale AND act = 1 AND base = new_base AND at = old_until AND until > at
            AND old_size + length(body) <= %(most)s AS kept
    FROM begun
), changed AS (
    UPDATE dalsegno_step AS s
    SET epoch = d.epoch, author = d.new_author, base = d.new_base, run = d.new_run,
        until = CASE WHEN d.kept THEN d.until ELSE d.old_until END,
        size = d.old_size + CASE WHEN d.kept THEN length(d.body) ELSE 0 END,
        -- The time is in an index; it is not moved with every piece.
        expires = CASE
            WHEN d.alive AND d.expires > d.clock + %(ttl)s * 0.9375 THEN s.expires ELSE d.clock + %(ttl)s
        END,
        ttl = CASE WHEN d.alive AND d.expires > d.clock + %(ttl)s * 0.9375 THEN s.ttl ELSE %(ttl)s END
    FROM decided AS d
    WHERE d.run >= 0 AND NOT d.stale AND s.tenant = d.tenant AND s.id = d.id
), added AS (
    INSERT INTO dalsegno_step (n, tenant, id, epoch, author, base, run, until, size, expires, ttl)
    SELECT n, tenant, id, epoch, new_author, new_base, new_run, CASE WHEN kept THEN until ELSE 0 END,
        CASE WHEN kept THEN length(body) ELSE 0 END, clock + %(ttl)s, %(ttl)s
    FROM decided WHERE run < 0
), forgotten AS (
    DELETE FROM dalsegno_piece AS p USING decided AS d
    WHERE d.emptied AND NOT d.stale AND d.run >= 0 AND p.step = d.n AND p.run <= d.run
), written AS (
    INSERT INTO dalsegno_piece (step, run, at, until, body)
    SELECT n, new_run, at, until, body FROM decided WHERE kept
)
SELECT nth, stale, kept, new_base, old_until FROM decided
