SELECT head FROM dalsegno_session WHERE tenant = ? AND id = ?
