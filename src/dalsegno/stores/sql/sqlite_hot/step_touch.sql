UPDATE dalsegno_step SET expires = ?, ttl = ? WHERE n = ?
