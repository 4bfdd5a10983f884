INSERT INTO dalsegno_step (epoch, author, base, until, size, expires, ttl, tenant, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
