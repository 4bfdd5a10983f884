INSERT INTO dalsegno_replica (incarnation, id, pid, url, expires, ttl, lock)
VALUES (%(incarnation)s, %(id)s, %(pid)s, %(url)s, clock_timestamp() + %(ttl)s, %(ttl)s, %(lock)s)
ON CONFLICT (incarnation) DO UPDATE SET expires = excluded.expires, ttl = excluded.ttl, lock = excluded.lock
