"""PostgreSQL: the warm tier of a fleet on several machines.

`log` puts the tier together: `sessions` decide and read, `rows` say what is written, `writer` sends it, `fleet` knows
who lives, `tool` lends the database to tools. `place` says how a server is reached, `connections` reach it, `failure`
what its errors mean, `schema` brings it up to date, `arrays` how many values become one
parameter, `bodies` how an event's bytes are stored.
"""

from dalsegno.stores.postgres.log import PostgresLog

__all__ = ["PostgresLog"]
