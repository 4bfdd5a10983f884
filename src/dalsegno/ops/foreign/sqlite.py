"""Other programs' SQLite files, read only."""

import sqlite3
from urllib.parse import quote

from dalsegno.errors import ConfigError
from dalsegno.stores import sqlite_path


def read_only(url: str) -> sqlite3.Connection:
    """The file of a `sqlite:///` URL; nothing is made, or changed. Raises `ConfigError` if there is none."""
    path = sqlite_path(url)
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, check_same_thread=False)
