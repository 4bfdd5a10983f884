-- Who is known, whether it is alive, and whether the server has let go of its lock, although its record names one.
SELECT incarnation, id, pid, url, clock_timestamp() < expires AND expires - ttl <= clock_timestamp(),
    lock IS NOT NULL AND lock NOT IN (
        SELECT classid::bigint << 32 | objid::bigint FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1 AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
FROM dalsegno_replica
