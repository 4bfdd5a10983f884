-- Out of the claims' sight until somebody writes the session again.
UPDATE dalsegno_session SET ready_at = NULL WHERE n = %(n)s
