DELETE FROM dalsegno_replica WHERE incarnation = %(incarnation)s
