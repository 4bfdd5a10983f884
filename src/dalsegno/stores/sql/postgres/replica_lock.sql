-- Shared, so that what is left of an earlier connection of the same replica is in nobody's way.
SELECT pg_advisory_lock_shared(%(lock)s)
