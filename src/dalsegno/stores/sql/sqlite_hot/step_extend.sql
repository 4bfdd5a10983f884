UPDATE dalsegno_step SET until = ?, size = ?
WHERE n = ? AND tenant = ? AND id = ? AND epoch = ? AND author = ? AND base = ? AND until = ?
