"""Who listens in this process, and what each of them hears: of what it tells itself, and of what came by a wire."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Ears(Generic[T]):
    """The listeners of one handle."""

    def __init__(self) -> None:
        self._ears: dict[object, Callable[[T], None]] = {}

    def tell(self, said: Iterable[T]) -> None:
        """Every listener hears all of it, at once."""
        for heard in list(self._ears.values()):
            for one in said:
                heard(one)

    @contextmanager
    def listen(self, heard: Callable[[T], None]) -> Iterator[None]:
        """Until the context ends."""
        key = object()
        self._ears[key] = heard
        try:
            yield
        finally:
            del self._ears[key]
