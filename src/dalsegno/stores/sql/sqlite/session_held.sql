SELECT tenant, id FROM dalsegno_session WHERE owner = ?
