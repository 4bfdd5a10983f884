-- Nothing of the session may have been written since the erasure began.
UPDATE dalsegno_session SET status = 4, shelf = NULL WHERE n = ? AND epoch = ? AND status = 3
