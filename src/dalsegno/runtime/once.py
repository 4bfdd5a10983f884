"""Functions that run once for each key: the intent is recorded before the call, the result after it.

The classes are those of tools (`core.effect`): a call that its process did not survive is made again where that is
safe, and otherwise only when it is known not to have happened.
"""

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import update_wrapper
from typing import Generic, ParamSpec, Protocol, TypeVar, cast

import msgspec

from dalsegno.core import job as jobs
from dalsegno.core.effect import DidNotHappen, Finding, Happened
from dalsegno.core.event import EffectClass
from dalsegno.core.ids import short_hash
from dalsegno.core.json import canonical, checked, clean_text
from dalsegno.errors import ConfigError, Conflict, InDoubt, NotDone, Refused, Unavailable
from dalsegno.runtime.blame import words
from dalsegno.runtime.job import Pen

P = ParamSpec("P")
R = TypeVar("R")
FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.5
KEY_PARAMETER = "idempotency_key"


class Rules(msgspec.Struct, frozen=True):
    """What is known about calling a function twice. `wait`: how long a call waits for another one of the same key.
    `tenant`: whose calls they are.
    """

    tenant: str
    key: Callable[..., str] | None
    effect: EffectClass
    probe: Callable[..., Awaitable[Finding]] | None
    wait: timedelta


class Once(Generic[P, R]):
    """A function whose calls are on record. It returns the recorded JSON, the first time, too."""

    def __init__(self, function: Callable[P, Awaitable[R]], rules: Rules, *, name: str, pen: Callable[[str], Pen]):
        if rules.effect == "transactional":
            raise ConfigError("a transactional function shares a turn's transaction: declare it as a tool")
        if ":" in name:
            raise ConfigError(
                f"the name {name!r} holds a colon, which is where the key begins: its calls could be others'"
            )
        update_wrapper(self, function)
        self._function = function
        self._rules = rules
        self._name = name
        self._pen = pen
        self._signature = inspect.signature(function)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result that is on record under the key, else the function's.

        Raises `InDoubt` where it may have happened and must not be repeated; `Conflict` where another process is at it
        for longer than `wait`; and what the function raises. `NotDone` from it says that nothing has happened.
        """
        pen, deadline, pause = self._pen(self._session(*args, **kwargs)), _now() + self._rules.wait, FIRST_PAUSE_SECONDS
        while True:
            job = await pen.look()
            following = jobs.following(job, self._rules.effect)
            if following == "answer":
                return cast(R, job.results[jobs.RESULT])
            if following == "ask":
                await self._settle(pen, await self._found_out(pen, *args, **kwargs))
                continue
            if following == "run" and await _took(pen):
                return await self._run(pen, *args, **kwargs)
            if _now() > deadline:
                raise Conflict("session_busy", f"{pen.session} is run by {job.owner}, which is alive")
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def settle(self, finding: Happened | DidNotHappen, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Put on record what somebody found out about the call with these arguments, which is in doubt."""
        pen = self._pen(self._session(*args, **kwargs))
        job = await pen.look()
        if job.owner or jobs.RESULT in job.results:
            raise Conflict("session_busy", f"{pen.session} is not in doubt")
        await self._settle(pen, finding)

    async def _found_out(self, pen: Pen, *args: P.args, **kwargs: P.kwargs) -> Happened | DidNotHappen:
        found = None if self._rules.probe is None else await self._rules.probe(*args, **kwargs)
        if found is None:
            raise InDoubt(pen.session, pen.job.doubt)
        return found

    async def _settle(self, pen: Pen, finding: Happened | DidNotHappen) -> None:
        if await _took(pen):
            records = [jobs.recorded(jobs.RESULT, finding.result)] if isinstance(finding, Happened) else []
            await pen.leave(*records)

    async def _run(self, pen: Pen, *args: P.args, **kwargs: P.kwargs) -> R:
        if KEY_PARAMETER in self._signature.parameters:
            kwargs[KEY_PARAMETER] = self._key(pen.session)
        try:
            returned = await self._function(*args, **kwargs)
        except BaseException as error:
            doubt = f"it raised {type(error).__name__}: {words(error)}"
            with suppress(Conflict, Unavailable):
                await pen.leave(doubt="" if isinstance(error, NotDone) else clean_text(doubt)[:500])
            raise
        try:
            result = checked(returned)
            await pen.leave(jobs.recorded(jobs.RESULT, result))
        except Conflict:
            # We were taken for dead meanwhile: what is on record counts, and not what we did.
            kwargs.pop(KEY_PARAMETER, None)  # ours, and no argument that a key or a probe is made from
            return await self(*args, **kwargs)
        except Refused as error:  # it happened all the same
            with suppress(Conflict, Unavailable):
                await pen.leave(doubt=f"what it returned cannot be recorded: {error}"[:500])
            raise
        return cast(R, result)

    def _session(self, *args: P.args, **kwargs: P.kwargs) -> str:
        if self._rules.key is not None:
            return f"{jobs.CALL}{self._name}:{self._rules.key(*args, **kwargs)}"
        bound = self._signature.bind_partial(*args, **kwargs)
        bound.apply_defaults()
        asked = {name: value for name, value in bound.arguments.items() if name != KEY_PARAMETER}
        return f"{jobs.CALL}{self._name}:{short_hash(canonical(checked(asked)))}"

    def _key(self, session: str) -> str:
        """A function of what was asked, and of nothing else (law 5)."""
        return short_hash("once", self._rules.tenant, session)


class Decorator(Protocol):
    """Makes a function one whose calls are on record."""

    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Once[P, R]: ...


async def _took(pen: Pen) -> bool:
    try:
        await pen.take()
    except Conflict:
        return False
    return True


def _now() -> timedelta:
    return timedelta(seconds=asyncio.get_running_loop().time())
