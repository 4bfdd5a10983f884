-- One replica at a time; the others find the work done. Held until the transaction ends, so a pooler does no harm.
SELECT pg_advisory_xact_lock(hashtextextended('dalsegno_hot_schema ' || current_schema(), 0))
