SELECT tenant, id::text FROM dalsegno_session WHERE owner = %(owner)s
