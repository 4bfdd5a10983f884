SELECT n, head, epoch, owner, attempt, ready_at, since, state, shelf IS NOT NULL, tenant, id FROM dalsegno_session
WHERE n > ? ORDER BY n LIMIT ?
