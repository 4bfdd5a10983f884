-- Those of `names` whose lock nobody holds at this moment.
DELETE FROM dalsegno_replica
WHERE incarnation = ANY(%(names)s) AND lock IS NOT NULL AND lock NOT IN (
    SELECT classid::bigint << 32 | objid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
RETURNING incarnation
