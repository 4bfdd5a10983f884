#!lua flags=allow-oom
-- As `write`, for what makes room: works on a full server.

return write()
