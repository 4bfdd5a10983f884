SELECT n, head FROM dalsegno_session WHERE tenant = ? AND id = ? AND status = 3
