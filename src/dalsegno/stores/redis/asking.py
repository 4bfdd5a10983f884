"""Runs the log's scripts on the server that answers for a part. What Redis says is translated here, at the door."""

from collections.abc import Sequence
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)

from dalsegno.errors import DalsegnoError, Unavailable, Unreadable
from dalsegno.stores.redis.line import Manners, Word
from dalsegno.stores.redis.place import Place
from dalsegno.stores.redis.route import Route, route_to
from dalsegno.stores.redis.scripts import run, scripts

PATIENT = Manners(answer_seconds=5.0, dial_seconds=2.0, pause_seconds=0.1, sendings=1, failing=())
"""A server that is full or a replica by now can still be read."""
MEANINGS: tuple[tuple[type[RedisError], str], ...] = (
    (OutOfMemoryError, "Redis is full"),
    (ReadOnlyError, "the server is a replica by now"),
    (TryAgainError, "this part of the cluster is being moved"),
    (ClusterDownError, "the cluster is down"),
    (NoPermissionError, "the user may not do this"),
    (AuthenticationError, "the server does not let us in"),
)
CODES = {
    "MISCONF": "the server cannot write its disk",
    "NOREPLICAS": "the server has too few replicas",
    "BUSY": "the server is busy with a script",
}
"""Errors that a script does not even begin to run with: nothing was applied."""


class Asker:
    """One lane to the servers. What is asked together travels together."""

    def __init__(self, place: Place, *, copies: int = 0) -> None:
        self.route: Route = route_to(place, PATIENT._replace(copies=copies))
        self._scripts = scripts("redis_log")

    async def run(self, name: str, keys: Sequence[bytes], *words: Word) -> Any:
        """A script's reply. The first key says which server is asked. Raises `Unavailable` or `Unreadable`."""
        return _accepted(await run(self.route, self._scripts[name], keys, words))

    async def do(self, key: bytes, *words: Word) -> Any:
        """A command's reply, likewise."""
        return _accepted(await self.route.ask(key, *words))


def _accepted(reply: Any) -> Any:
    if isinstance(reply, RedisError):
        raise translated(reply)
    return reply


def translated(error: RedisError) -> DalsegnoError:
    """What a server's error means to a port's caller."""
    said = " ".join(str(error).split())
    if "WRONGTYPE" in said:
        return Unreadable(f"a key of the log is something else: {said}")
    meaning = next(
        (meaning for kind, meaning in MEANINGS if isinstance(error, kind)), CODES.get(said.partition(" ")[0])
    )
    if meaning is not None:
        return Unavailable(f"{meaning}: {said}", outcome="not_applied")
    return Unavailable(f"the server refuses: {said}", outcome="unknown")
