"""The call that is being carried out: for functions of frameworks, which cannot be handed a `Call`."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import msgspec

from dalsegno.errors import DalsegnoError
from dalsegno.ports import Call


class Request(msgspec.Struct, eq=False):
    """A request that a call's tool made: the `number`-th, and what became of it."""

    what: str
    number: int
    state: Literal["sent", "answered", "unanswered"] = "sent"


class Run(msgspec.Struct, eq=False):
    """One run of a call's tool, and the requests that it has made so far."""

    call: Call
    requests: list[Request] = []

    def request(self, what: str) -> Request:
        """The next one; or, where the same was sent and not answered, that one again."""
        for known in self.requests:
            if known.what == what and known.state == "unanswered":
                return known
        self.requests.append(Request(what, len(self.requests) + 1))
        return self.requests[-1]


_CURRENT: ContextVar[Run | None] = ContextVar("dalsegno_call", default=None)


def current_call() -> Call:
    """The call of the tool that this code is run by, in whatever thread.

    Raises `DalsegnoError` outside of a tool.
    """
    run = _CURRENT.get()
    if run is None:
        raise DalsegnoError("no tool is being carried out here: current_call() is for the code of tools")
    return run.call


def current_run() -> Run | None:
    """The run of the tool that this code is run by."""
    return _CURRENT.get()


@contextmanager
def carrying_out(call: Call) -> Iterator[None]:
    """What runs inside is the work of that call."""
    token = _CURRENT.set(Run(call))
    try:
        yield
    finally:
        _CURRENT.reset(token)
