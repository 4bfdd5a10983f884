INSERT INTO dalsegno_step (tenant, id, epoch, author, base, until, size, expires, ttl)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, id) DO UPDATE SET
    epoch = excluded.epoch, author = excluded.author, base = excluded.base, until = excluded.until,
    size = excluded.size, expires = excluded.expires, ttl = excluded.ttl
RETURNING n
