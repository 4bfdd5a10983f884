INSERT INTO dalsegno_schema (version, readable_by) VALUES (?, ?)
