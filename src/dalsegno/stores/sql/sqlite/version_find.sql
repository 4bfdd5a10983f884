SELECT count(*) FROM sqlite_master WHERE name = 'dalsegno_schema'
