SELECT id, n, head, epoch, owner, attempt, ready_at, since, state, status, user FROM dalsegno_session
WHERE tenant = ? AND id > ? ORDER BY id LIMIT ?
