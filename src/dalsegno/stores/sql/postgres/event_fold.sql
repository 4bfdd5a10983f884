SELECT seq, kind, turn, at, crc, body FROM dalsegno_event WHERE session = %(n)s AND seq <= %(head)s ORDER BY seq
