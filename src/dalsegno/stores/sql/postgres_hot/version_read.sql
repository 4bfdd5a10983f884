SELECT coalesce(max(version) FILTER (WHERE phase = %(phase)s), 0), max(readable_by) FROM dalsegno_hot_schema
