UPDATE dalsegno_step SET epoch = ?, author = ?, base = ?, until = ?, size = ? WHERE n = ?
