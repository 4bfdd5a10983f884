SELECT shelf FROM dalsegno_session WHERE n = ? AND status < 3
