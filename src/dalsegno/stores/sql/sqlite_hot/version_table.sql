-- `readable_by`: the oldest schema version whose code may still use the file.
CREATE TABLE IF NOT EXISTS dalsegno_schema (version INTEGER PRIMARY KEY, readable_by INTEGER NOT NULL)
