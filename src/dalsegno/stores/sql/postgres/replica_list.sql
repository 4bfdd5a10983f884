SELECT incarnation, id, pid, url, clock_timestamp() < expires AND expires - ttl <= clock_timestamp()
FROM dalsegno_replica
