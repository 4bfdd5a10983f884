"""What the memory tier keeps near stays within its bounds."""

from datetime import timedelta

from dalsegno.ports import Ref
from dalsegno.stores.memory.entries import BESIDES_BYTES, BYTES_MAX, MemoryEntries

KEEP = timedelta(minutes=1)
MANY = BYTES_MAX // BESIDES_BYTES


def test_many_small_entries_are_bounded_too():
    """Law 12: an entry takes more than its content; the oldest go first."""
    entries = MemoryEntries()
    for number in range(MANY + 2):
        entries.put(Ref("t", f"s{number}"), "result", 0, b"", keep=KEEP)
    found = [entries.find(Ref("t", f"s{number}"), "result") is not None for number in (0, 1, 2, MANY + 1)]
    assert found == [False, False, True, True]
