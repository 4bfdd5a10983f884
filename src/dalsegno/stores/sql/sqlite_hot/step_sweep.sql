DELETE FROM dalsegno_step WHERE n IN (
    SELECT n FROM dalsegno_step WHERE expires <= :clock UNION ALL SELECT n FROM dalsegno_step WHERE expires > :clock + :ttl
    LIMIT 100
) RETURNING n
