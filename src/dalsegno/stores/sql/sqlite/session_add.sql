INSERT INTO dalsegno_session (head, epoch, owner, attempt, ready_at, since, status, user, state, tenant, id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
