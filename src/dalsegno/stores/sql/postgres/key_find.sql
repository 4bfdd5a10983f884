SELECT fingerprint, seq, turn, status FROM dalsegno_key WHERE session = %(n)s AND digest = %(digest)s
