SELECT n, head FROM dalsegno_session WHERE tenant = %(tenant)s AND id = %(id)s::uuid AND status = 3
