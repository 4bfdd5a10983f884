"""Hints that a process tells itself: they need no wire."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dalsegno.ports import Hint


class Home:
    """The listeners of one handle of a hot tier."""

    def __init__(self) -> None:
        self._ears: dict[object, Callable[[Hint], None]] = {}

    def tell(self, hints: Sequence[Hint]) -> None:
        """Every listener hears every hint, at once."""
        for heard in list(self._ears.values()):
            for hint in hints:
                heard(hint)

    @contextmanager
    def listen(self, heard: Callable[[Hint], None]) -> Iterator[None]:
        """Until the context ends."""
        key = object()
        self._ears[key] = heard
        try:
            yield
        finally:
            del self._ears[key]
