"""How a replica is, looked up now: each tier is asked for something that is not there, all at the same time."""

import asyncio
from collections.abc import Awaitable, Mapping

import msgspec

from dalsegno.core.ladder import State, Tier, standing
from dalsegno.errors import DalsegnoError, Unavailable
from dalsegno.runtime.watch import Watch

ANSWER_SECONDS = 1.5


class Health(msgspec.Struct, frozen=True):
    """How a replica is. `tiers` says `ok` or what is wrong; `degraded` names the tiers that are not `ok`."""

    ready: bool
    draining: bool
    replica: str
    turns: int
    tiers: dict[str, str]
    degraded: list[str]


class Found(msgspec.Struct, frozen=True):
    """How one tier is, in a word and in its own words; they are told to anybody."""

    state: State
    words: str


async def look(tiers: Mapping[Tier, tuple[Watch, Awaitable[object]]]) -> Mapping[Tier, Found]:
    """Each tier's answer to its question, and what else it has failed at of late."""
    found = await asyncio.gather(*(_state_of(watch, question) for watch, question in tiers.values()))
    return dict(zip(tiers, found, strict=True))


def is_ready(found: Mapping[Tier, Found]) -> bool:
    """Whether a load balancer should send requests here, as far as the tiers go."""
    return standing({tier: one.state for tier, one in found.items()}).ready


async def _state_of(watch: Watch, question: Awaitable[object]) -> Found:
    try:
        await asyncio.wait_for(question, timeout=ANSWER_SECONDS)
    except TimeoutError:
        return Found("away", f"no answer in {ANSWER_SECONDS} s")
    except Unavailable as error:
        return Found("away", error.brief)
    except DalsegnoError as error:
        return Found("away", type(error).__name__)
    trouble = watch.trouble
    return Found("refuses", trouble) if trouble else Found("ok", "ok")
