SELECT max(version), max(readable_by) FROM dalsegno_schema
