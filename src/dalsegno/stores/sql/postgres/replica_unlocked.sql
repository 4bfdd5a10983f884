-- Whose lock the server has let go of, although its record names one.
SELECT incarnation FROM dalsegno_replica
WHERE lock IS NOT NULL AND lock NOT IN (
    SELECT classid::bigint << 32 | objid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
