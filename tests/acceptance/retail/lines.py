"""Files of JSON lines that other processes are writing."""

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def lines_of(path: Path, *, after: int = 0) -> list[Json]:
    """The whole lines of a file. The last one may be torn, if its writer was killed: that one is left out."""
    with path.open("rb") as file:
        file.seek(after)
        return [json.loads(line) for line in file.read().split(b"\n")[:-1]]


def all_lines(folder: Path) -> list[Json]:
    """The whole lines of all files of a folder, file by file."""
    return [line for path in sorted(folder.iterdir()) for line in lines_of(path)]
