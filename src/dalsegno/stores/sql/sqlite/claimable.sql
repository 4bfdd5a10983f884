-- What `owner`, if it is alive, may claim, longest waiting first: free and ready, free and past an expiry, held by
-- nobody alive.
-- Turns that begin or resume their last attempt (`core.claim.ATTEMPTS_MAX`) only if the claimant has `chances` left.
-- Each branch stops at the limit; holders are found by skipping through the index from name to name.
WITH RECURSIVE alive (incarnation) AS MATERIALIZED (
    SELECT incarnation FROM dalsegno_replica WHERE expires > :clock AND expires - ttl <= :clock
), holder (owner) AS (
    SELECT min(owner) FROM dalsegno_session WHERE owner IS NOT NULL
    UNION ALL
    SELECT (SELECT min(owner) FROM dalsegno_session WHERE owner > holder.owner) FROM holder WHERE holder.owner IS NOT NULL
), gone (owner) AS MATERIALIZED (
    SELECT owner FROM holder WHERE owner IS NOT NULL AND owner NOT IN alive
)
SELECT n, waiting FROM (
    SELECT * FROM (
        SELECT n, since AS waiting FROM dalsegno_session
        WHERE owner IS NULL AND ready_at = 0 AND (attempt < 3 OR :chances > 0) ORDER BY since LIMIT :limit
    )
    UNION ALL
    SELECT * FROM (
        SELECT n, ready_at AS waiting FROM dalsegno_session
        WHERE owner IS NULL AND ready_at > 0 AND ready_at <= :now ORDER BY ready_at LIMIT :limit
    )
    UNION ALL
    SELECT * FROM (
        SELECT s.n, s.since AS waiting FROM gone CROSS JOIN dalsegno_session AS s ON s.owner = gone.owner
        WHERE s.ready_at <= :now AND (s.attempt <> 2 OR :chances > 0) LIMIT :limit
    )
) WHERE :owner IN alive ORDER BY waiting LIMIT :limit
