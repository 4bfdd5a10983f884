INSERT INTO dalsegno_replica (incarnation, id, pid, url, expires, ttl)
VALUES (:incarnation, :id, :pid, :url, :expires, :ttl)
ON CONFLICT (incarnation) DO UPDATE SET expires = excluded.expires, ttl = excluded.ttl
