DELETE FROM dalsegno_key WHERE session = ? AND digest IN (
    SELECT digest FROM dalsegno_key WHERE session = ? LIMIT ?
)
