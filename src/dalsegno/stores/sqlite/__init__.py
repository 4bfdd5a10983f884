"""SQLite: the warm tier of an embedded fleet, several replica processes on one machine.

`log` puts it together: `writer` and `committer` decide when what is committed, `rows` what is written, `readers` look,
`fleet` knows who lives, `tool` lends the database to tools. `hot` is the hot tier beside it.
"""

from dalsegno.stores.sqlite.log import SqliteLog

__all__ = ["SqliteLog"]
