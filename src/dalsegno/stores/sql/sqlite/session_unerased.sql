SELECT tenant, id, epoch FROM dalsegno_session
WHERE status = 3 AND (tenant, id) > (?, ?) ORDER BY tenant, id LIMIT ?
