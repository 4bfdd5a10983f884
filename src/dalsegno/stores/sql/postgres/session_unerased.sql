SELECT tenant, id::text, epoch FROM dalsegno_session
WHERE status = 3 AND (tenant, id) >= (%(tenant)s, %(id)s::uuid) ORDER BY tenant, id LIMIT %(limit)s
