-- Each fleet of a database has a channel: that of the schema it lives in.
SELECT pg_notify('dalsegno_' || md5(current_schema()), payload) FROM unnest(%(payloads)s) AS payload
