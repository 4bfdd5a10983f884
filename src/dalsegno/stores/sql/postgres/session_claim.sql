-- What `owner`, if it is alive, may claim, longest waiting first: free and ready, free and past an expiry, held by
-- nobody alive. Locked until the transaction ends; what somebody else has locked is left to them.
-- Turns that begin or resume their last attempt (`core.claim.ATTEMPTS_MAX`) only if the claimant has `chances` left.
-- Each branch stops at the limit; holders are found by skipping through the index from name to name.
WITH RECURSIVE moment (clock, now) AS MATERIALIZED (
    SELECT clock, (extract(epoch FROM clock) * 1000)::bigint FROM clock_timestamp() AS clock
), alive (incarnation) AS MATERIALIZED (
    SELECT incarnation FROM dalsegno_replica CROSS JOIN moment WHERE expires > clock AND expires - ttl <= clock
), holder (owner) AS (
    SELECT min(owner) FROM dalsegno_session WHERE owner IS NOT NULL
    UNION ALL
    SELECT (SELECT min(s.owner) FROM dalsegno_session AS s WHERE s.owner > holder.owner)
    FROM holder WHERE holder.owner IS NOT NULL
), gone (owner) AS MATERIALIZED (
    SELECT owner FROM holder
    WHERE owner IS NOT NULL AND owner NOT IN (SELECT incarnation FROM alive)
        AND %(owner)s IN (SELECT incarnation FROM alive)
), free AS (
    SELECT n, head, epoch, owner, attempt, since, state, tenant, id, since AS waiting FROM dalsegno_session
    WHERE owner IS NULL AND ready_at = 0 AND (attempt < 3 OR %(chances)s > 0)
        AND %(owner)s IN (SELECT incarnation FROM alive)
    ORDER BY since LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), due AS (
    SELECT n, head, epoch, owner, attempt, since, state, tenant, id, ready_at AS waiting FROM dalsegno_session
    WHERE owner IS NULL AND ready_at > 0 AND ready_at <= (SELECT now FROM moment)
        AND %(owner)s IN (SELECT incarnation FROM alive)
    ORDER BY ready_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), held AS (
    SELECT s.n, s.head, s.epoch, s.owner, s.attempt, s.since, s.state, s.tenant, s.id, s.since AS waiting
    FROM gone CROSS JOIN dalsegno_session AS s
    WHERE s.owner = gone.owner AND s.ready_at <= (SELECT now FROM moment) AND (s.attempt <> 2 OR %(chances)s > 0)
    LIMIT %(limit)s FOR UPDATE OF s SKIP LOCKED
)
SELECT n, head, epoch, owner, attempt, since, state, tenant, id::text, (SELECT now FROM moment) FROM (
    SELECT * FROM free UNION ALL SELECT * FROM due UNION ALL SELECT * FROM held
) AS found ORDER BY waiting, id LIMIT %(limit)s
