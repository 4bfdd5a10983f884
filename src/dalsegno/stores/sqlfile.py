"""Statements kept as files: `sql/<product>/<name>.sql`, one statement a file. Knows no product."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)


@cache
def statements(product: str) -> Mapping[str, str]:
    """Every statement of a product by its file's name, without whole-line comments and needless white space."""
    folder = resources.files("dalsegno.stores").joinpath("sql", product)
    found = {}
    for entry in folder.iterdir():
        name, dot, ending = entry.name.partition(".")
        if dot and ending == "sql":
            text = _COMMENT.sub("", entry.read_text("utf-8"))
            found[name] = "\n".join(line.rstrip() for line in text.splitlines() if line.strip()).rstrip("; \n")
    return found


def migrations(product: str, phase: str = "schema") -> list[tuple[int, str]]:
    """The product's `schema_0001.sql`, `schema_0002.sql`, … in order, with their numbers. Each is a script."""
    found = []
    for name, text in statements(product).items():
        if numbered := re.fullmatch(rf"{phase}_(\d{{4}})", name):
            found.append((int(numbered[1]), text))
    return sorted(found)
