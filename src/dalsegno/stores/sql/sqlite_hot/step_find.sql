SELECT n, epoch, author, base, until, size, expires, ttl FROM dalsegno_step WHERE tenant = ? AND id = ?
