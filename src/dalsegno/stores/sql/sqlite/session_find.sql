SELECT n, head, epoch, owner, attempt, ready_at, since, state FROM dalsegno_session WHERE tenant = ? AND id = ?
