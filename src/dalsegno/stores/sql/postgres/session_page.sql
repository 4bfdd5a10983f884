SELECT n, head, epoch, owner, attempt, since, state, id::text, status, "user" FROM dalsegno_session
WHERE tenant = %(tenant)s AND id >= %(from)s::uuid ORDER BY id LIMIT %(limit)s
