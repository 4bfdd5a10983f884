"""Which record is whose: a node's own calls, told apart by what they ask and not by the order in which they are begun.

A node that a crash cut off is run again from its beginning. What it does side by side may then begin in another order,
and the record of one call must not be taken for another's. What was asked is therefore part of a call's name. A call
whose words are not on record, where others of the node are that nobody has asked for yet, may be new, or may be one of
those in other words (a clock, a chance): it waits a moment for those to be asked for. After that a model's answer is
taken in order; a tool's call is refused, since either choice might do its effect twice, or not at all.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from dalsegno.core.ids import short_hash
from dalsegno.errors import DalsegnoError

GRACE_SECONDS = 1.0
LOOK_SECONDS = 0.01
DIGEST_CHARS = 12


class Claims:
    """One run's. `recorded` names the steps on record that begin with a prefix, in the order of the log."""

    def __init__(self, recorded: Callable[[str], Sequence[str]]) -> None:
        self._recorded = recorded
        self._taken: Counter[str] = Counter()

    async def name(self, prefix: str, asked: Any, *, otherwise: str = "") -> str:
        """The name of the step for what is asked at that place. `otherwise` says why nothing but its own record will
        do; empty = the first that is left will. Raises `DalsegnoError` with it.
        """
        own = f"{prefix}:{_digest(asked)}"
        until = asyncio.get_running_loop().time() + GRACE_SECONDS
        while (left := self._left(f"{prefix}:")) and own not in left:
            if asyncio.get_running_loop().time() > until:
                if otherwise:
                    raise DalsegnoError(otherwise)
                return left[0]
            await asyncio.sleep(LOOK_SECONDS)
        return own

    @contextmanager
    def taken(self, name: str) -> Iterator[None]:
        """One more step of that name is asked for; one that fails was not."""
        self._taken[name] += 1
        try:
            yield
        except BaseException:
            self._taken[name] -= 1
            raise

    def _left(self, prefix: str) -> list[str]:
        taken, left = self._taken.copy(), list[str]()
        for name in self._recorded(prefix):
            if taken[name] > 0:
                taken[name] -= 1
            else:
                left.append(name)
        return left


def _digest(asked: Any) -> str:
    return short_hash(msgspec.json.encode(asked, enc_hook=str, order="deterministic"))[:DIGEST_CHARS]
