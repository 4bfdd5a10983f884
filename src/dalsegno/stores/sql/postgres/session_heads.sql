-- How many events each of these sessions has.
SELECT s.tenant, s.id::text, s.head
FROM unnest(%(tenants)s::text[], %(ids)s::uuid[]) AS wanted (tenant, id)
JOIN dalsegno_session AS s USING (tenant, id)
