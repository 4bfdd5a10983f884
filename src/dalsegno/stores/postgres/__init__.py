"""PostgreSQL: the warm tier of a fleet on several machines, and its hot tier where there is no Redis.

`log` puts the tier together: `sessions` decide and read, `rows` say what is written, `writer` sends it, `fleet` knows
who lives, `tool` lends the database to tools. `place` says how a server is reached, `connections` reach it, `failure`
what its errors mean, `schema` brings it up to date, `arrays` how many values become one
parameter, `bodies` how an event's bytes are stored.

`hot` is the hot tier: `steps` are its rows, `hints` its words to everybody, a `lane` takes many calls along at once.
"""

from dalsegno.stores.postgres.hot import PostgresHot
from dalsegno.stores.postgres.log import PostgresLog
from dalsegno.stores.postgres.schema import tidy

__all__ = ["PostgresHot", "PostgresLog", "tidy"]
