SELECT n, head, epoch, owner, attempt, ready_at, since, state, tenant, id FROM dalsegno_session WHERE n = ?
