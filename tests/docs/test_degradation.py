"""What the page about failing tiers says is held by tests, and said by the code."""

import re

from dalsegno.stores.postgres import failure
from tests.docs.pages import DOCS, ROOT

PAGE = (DOCS / "explain" / "degradation.md").read_text("utf-8")


def test_every_rung_names_a_test_that_there_is() -> None:
    """Each row ends in a test; a test that was renamed leaves no row behind."""
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and line.count("|") == 7]
    named = 0
    for row in rows:
        for file, name in re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", row):
            texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob(file)]
            assert any(not name or f"def {name}(" in text for text in texts), f"no {file} has {name}"
            named += 1
    assert named >= 15


def test_reasons_of_the_database_are_those_that_it_gives() -> None:
    """What `/health` is said to say of PostgreSQL is in the table that it comes from."""
    given = {*failure._UNREACHABLE.values(), *failure._REFUSALS.values(), "the database cannot be reached"}
    given.add("the connection to the database was lost")
    said = set(re.findall(r"`(the (?:database|connection to the database)[^`]*)`", PAGE)) - {
        "the database file does not answer"
    }
    assert said and said <= given
