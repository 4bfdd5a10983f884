SELECT n, head, epoch, owner, attempt, since, state, shelf IS NOT NULL, tenant, id::text FROM dalsegno_session
WHERE n > %(n)s ORDER BY n LIMIT %(limit)s
