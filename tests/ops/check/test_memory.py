"""What a module keeps, looked at without calling anything of it."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from dalsegno.ops.check.memory import Surveyor, changes

MODULE = """
import collections, functools, itertools, re, threading
from http.client import HTTPConnection

class Touchy:
    def __init__(self): self.seen = []
    def __repr__(self): raise RuntimeError("called")
    def __eq__(self, other): raise RuntimeError("called")
    __hash__ = None
    @property
    def secret(self): raise RuntimeError("called")

class Slotted:
    __slots__ = ("count",)

touchy, slotted, lock, pattern = Touchy(), Slotted(), threading.Lock(), re.compile("x")
numbers, recent, connection = itertools.count(), collections.deque(maxlen=2), HTTPConnection("x")
api_key, ring = "one", []
ring.append(ring)

@functools.lru_cache
def cached(value): return value

def change():
    global api_key
    touchy.seen.append(1); slotted.count = 1; next(numbers); recent.append("new"); cached(1); ring.append(1)
    connection.user = touchy; api_key = "two"; change.called = True

def harmless():
    lock.acquire(); lock.release(); re.compile("yy").match("x"); connection._http_vsn_str = "HTTP/9"
"""


@contextmanager
def module(folder: Path) -> Iterator[ModuleType]:
    path = folder / "kept.py"
    path.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("kept", path)
    assert spec is not None and spec.loader is not None
    made = sys.modules["kept"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    try:
        yield made
    finally:
        del sys.modules["kept"]


def test_every_change_is_named_and_nothing_is_called(tmp_path: Path):
    """Objects with slots, with hostile methods, in rings, caches, counters, attributes of functions."""
    with module(tmp_path) as made:
        surveyor = Surveyor(lambda file: file.startswith(str(tmp_path)))
        before = surveyor.look()
        made.change()
        found = {name: now for name, _, now in changes(before, surveyor.look())}
    names = {"touchy", "slotted", "numbers", "recent", "cached", "ring", "api_key", "change.called", "connection"}
    assert set(found) == {f"kept.{name}" for name in names}
    assert found["kept.cached"].kind == "cache" and found["kept.recent"].shown == "deque('new')"
    assert found["kept.api_key"].shown == "•••"


def test_what_libraries_keep_for_themselves_is_told_apart(tmp_path: Path):
    """It is of another kind, which is never a fault."""
    with module(tmp_path) as made:
        surveyor = Surveyor(lambda file: file.startswith(str(tmp_path)))
        before = surveyor.look()
        assert not list(changes(before, surveyor.look()))
        made.harmless()
        found = [(name, now.kind) for name, _, now in changes(before, surveyor.look())]
    assert found == [("kept.connection", "library")]
