UPDATE dalsegno_session SET shelf = NULL WHERE tenant = ? AND id = ? AND shelf = ? AND status < 3 RETURNING n
