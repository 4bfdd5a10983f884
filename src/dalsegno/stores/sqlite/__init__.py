"""SQLite: the warm tier of an embedded fleet, several replica processes on one machine, and a hot tier beside it.

`log` puts the warm tier together: `writer` and `committer` decide when and where to commit, `rows` what is written,
`readers` look, `fleet` knows who lives, `tool` lends the database to tools. `hot` is the hot tier: `steps` are its
rows, `wake` carries its hints. `file` knows how a SQLite file is shared by processes.
"""

from dalsegno.stores.sqlite.hot import SqliteHot
from dalsegno.stores.sqlite.log import SqliteLog

__all__ = ["SqliteHot", "SqliteLog"]
