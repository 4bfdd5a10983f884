SELECT version, readable_by FROM dalsegno_schema
