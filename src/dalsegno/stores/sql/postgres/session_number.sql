SELECT n FROM dalsegno_session WHERE tenant = %(tenant)s AND id = %(id)s::uuid
