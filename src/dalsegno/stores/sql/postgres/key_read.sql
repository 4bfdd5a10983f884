SELECT k.digest, k.fingerprint, k.seq, k.turn, k.status
FROM dalsegno_session AS s JOIN dalsegno_key AS k ON k.session = s.n
WHERE s.tenant = %(tenant)s AND s.id = %(id)s::uuid
