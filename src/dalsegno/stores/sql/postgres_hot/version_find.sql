-- Not `to_regclass`: it may remember that there was none before somebody else made it.
SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'dalsegno_hot_schema' AND pg_table_is_visible(oid))
