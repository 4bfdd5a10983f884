-- Open steps, each with its pieces, of one moment; of the step with a known `base` what ends after `after`.
SELECT g.nth, s.base, s.epoch, (
    SELECT array_agg(p.body ORDER BY p.at) FROM dalsegno_piece AS p
    WHERE p.step = s.n AND p.run = s.run AND p.until > CASE WHEN s.base = g.base THEN g.after ELSE 0 END
)
FROM unnest(%(tenant)s, %(id)s, %(base)s, %(after)s) WITH ORDINALITY AS g (tenant, id, base, after, nth)
JOIN dalsegno_step AS s ON s.tenant = g.tenant AND s.id = g.id
WHERE s.until > 0 AND s.expires > clock_timestamp() AND s.expires - s.ttl <= clock_timestamp()
