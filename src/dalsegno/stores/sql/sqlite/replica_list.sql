SELECT incarnation, id, pid, url, expires, ttl FROM dalsegno_replica
