"""The doctor: does each tier keep, here and now, what the promises lean on? Examines; changes nothing that others see.

What it writes lies in a tenant of its own. `wrong` means that promises do not hold, `degraded` that they hold slower.
"""

import asyncio
import hashlib
import platform
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.parse import quote

import msgspec

from dalsegno import stores
from dalsegno.core.append import Decision, Draft, Keep, Known, Refusal, Write, record
from dalsegno.core.event import SessionCreated, SessionUpdated
from dalsegno.core.lifecycle import delete
from dalsegno.core.session import Session
from dalsegno.core.stream import Piece
from dalsegno.errors import ConfigError, DalsegnoError, LeaseLost
from dalsegno.ops.config import Config, redacted
from dalsegno.ops.guard import is_loopback
from dalsegno.ops.ids import RandomIds
from dalsegno.ops.loop import described
from dalsegno.ops.tiers import Places
from dalsegno.ops.version import VERSION
from dalsegno.ports import Batch, Hint, Hot, Ref, Warm
from dalsegno.stores import Probed, Risky

TENANT = "dalsegno-doctor"
RIVALS = 8
SKEW_MS = 1000
HINT_SECONDS = 2.0
State = Literal["ok", "degraded", "wrong"]


class Finding(msgspec.Struct, frozen=True):
    """What was found about one thing."""

    what: str
    state: State
    detail: str


async def examine(config: Config, where: Places) -> AsyncIterator[Finding]:
    """Everything, in the order in which one would repair it."""
    yield Finding("versions", "ok", f"dalsegno {VERSION}, Python {platform.python_version()}, {described()}")
    yield _door(config)
    with ExitStack() as stack:
        instead = {url: stack.enter_context(_instead(url)) for url in {where.warm, where.hot, where.cold}}
        for tier, url, look in (("warm", where.warm, _warm), ("hot", where.hot, _hot), ("cold", where.cold, _cold)):
            missing: State = "degraded" if tier == "hot" else "wrong"
            try:
                async for finding in look(instead[url]):
                    yield msgspec.structs.replace(finding, detail=finding.detail.replace(instead[url], url))
            except (DalsegnoError, OSError) as error:
                yield Finding(f"{tier}", missing, f"{redacted(url)}: {error}")
        for url in sorted(url for url in instead if instead[url] != url):
            meant: State = "degraded" if url in (config.warm, config.hot, config.cold) else "ok"
            yield Finding("place", meant, f"{url} is not there yet; whoever serves begins an empty one")


@contextmanager
def _instead(url: str) -> Iterator[str]:
    """What is examined for that URL: itself; or, for a file or folder that is not there, one of a moment in the nearest
    folder, so that a slip of the pen leaves nothing on the disk.
    """
    with ExitStack() as stack:
        place, moment = _place(url), None
        if place is not None and not place.exists():
            near = next(folder for folder in place.absolute().parents if folder.is_dir())
            with suppress(OSError):  # it is found again, and told, where the place itself is to be made
                moment = stack.enter_context(TemporaryDirectory(prefix=".dalsegno-doctor-", dir=near))
        if moment is None:
            yield url
        elif url.lower().startswith("sqlite:"):
            yield f"sqlite:///{quote(moment)}/sessions.db"
        else:
            yield f"file://{quote(moment)}"


def _place(url: str) -> Path | None:
    """The file or folder of that URL; None for what is elsewhere, or is no URL."""
    with suppress(ConfigError):
        match url.partition(":")[0].lower():
            case "sqlite":
                return stores.sqlite_path(url)
            case "file":
                return stores.folder_path(url)
    return None


def _door(config: Config) -> Finding:
    tenants = len({tenant for _, tenant in config.api_keys})
    if tenants:
        return Finding("API keys", "ok", f"{len(config.api_keys)} for {tenants} tenants")
    if is_loopback(config.host):
        return Finding("API keys", "ok", "none: everybody on this machine is tenant `default`")
    state: State = "degraded" if config.insecure else "wrong"
    return Finding("API keys", state, f"none, and {config.host} is not loopback: set DALSEGNO_API_KEYS")


# ------------------------------------------------------------------------------------------------ warm


async def _warm(url: str) -> AsyncIterator[Finding]:
    warm = await stores.open_warm(url)
    try:
        began = time.perf_counter()
        members = await warm.members()
        took = (time.perf_counter() - began) * 1000
        yield Finding("warm", "ok", f"{redacted(url)}{_version(url)}: {len(members)} replicas alive, {took:.1f} ms")
        for state, what in warm.risks if isinstance(warm, Risky) else ():
            yield Finding("durability", state, what)
        ref = Ref(TENANT, RandomIds().session())
        yield await _creation(warm, ref, url)
        yield await _order(warm, ref)
        yield await _clock(warm, ref)
        deleted = await warm.commit(ref, delete)
        if isinstance(deleted, Write):
            await warm.erase(ref, deleted.result.epoch)
    finally:
        await stores.close(warm)


async def _creation(warm: Warm, ref: Ref, url: str) -> Finding:
    """Rivals over two handles, as of two replicas, create the same session: one wins."""
    other = warm if url.startswith("memory:") else await stores.open_warm(url)
    try:
        tries = [handle.commit(ref, partial(_create, ref=ref)) for handle in (warm, other) for _ in range(RIVALS // 2)]
        won = sum(isinstance(decision, Write) for decision in await asyncio.gather(*tries))
    finally:
        if other is not warm:
            await stores.close(other)
    state: State = "ok" if won == 1 else "wrong"
    return Finding("create if absent", state, f"{won} of {RIVALS} rivals created the session")


async def _order(warm: Warm, ref: Ref) -> Finding:
    """Writers at the same time get numbers without gaps, and everything that was acknowledged is read."""
    began = time.perf_counter()
    await asyncio.gather(*(warm.commit(ref, _touch) for _ in range(RIVALS)))
    took = (time.perf_counter() - began) * 1000 / RIVALS
    numbers = [event.seq for event in await warm.read(ref, after=0)]
    if numbers != list(range(1, RIVALS + 2)):
        return Finding("conditional writes", "wrong", f"{RIVALS} appends at once were numbered {numbers}")
    return Finding("conditional writes", "ok", f"{RIVALS} appends at once, in order, {took:.1f} ms each")


async def _clock(warm: Warm, ref: Ref) -> Finding:
    seen: list[int] = []

    def look(session: Session | None, known: Known | None, now: int) -> Decision[None]:
        seen.append(now)
        return Keep(None)

    await warm.commit(ref, look)
    skew = seen[-1] - time.time_ns() // 1_000_000
    state: State = "ok" if abs(skew) <= SKEW_MS else "degraded"
    return Finding("clock", state, f"the store's is {skew:+d} ms from this machine's; only the store's decides")


def _create(session: Session | None, known: Known | None, now: int, *, ref: Ref) -> Decision[None]:
    if session is not None:
        return Refusal("session_exists", "somebody else was first")
    made, events = record(Session(id=ref.id, tenant=ref.tenant), [Draft(SessionCreated())], now)
    return Write(made, events, None)


def _touch(session: Session | None, known: Known | None, now: int) -> Decision[None]:
    if session is None:
        return Refusal("not_found", "what was written is not there")
    made, events = record(session, [Draft(SessionUpdated({}))], now)
    return Write(made, events, None)


def _version(url: str) -> str:
    return f" (SQLite {sqlite3.sqlite_version})" if url.startswith("sqlite:") else ""


# ------------------------------------------------------------------------------------------------ hot, cold


async def _hot(url: str) -> AsyncIterator[Finding]:
    hot = await stores.open_hot(url)
    try:
        ref, began = Ref(TENANT, RandomIds().session()), time.perf_counter()
        await hot.publish([Batch(ref, 2, [Piece(1, 0, 1, "msg", item={"type": "message", "id": "msg"})])])
        found = await hot.read(ref)
        took = (time.perf_counter() - began) * 1000
        state: State = "ok" if found is not None and len(found.pieces) == 1 else "degraded"
        yield Finding("hot", state, f"{redacted(url)}: written and read in {took:.1f} ms")
        yield await _fence(hot, ref)
        await hot.clear(ref, 2)
        yield await _hints(hot, ref)
    finally:
        await stores.close(hot)


async def _fence(hot: Hot, ref: Ref) -> Finding:
    refused = await hot.publish([Batch(ref, 1, [Piece(1, 1, 1, "msg", field="text", delta="stale")])])
    if isinstance(refused.get(ref), LeaseLost):
        return Finding("hot fence", "ok", "a stale epoch was refused")
    return Finding("hot fence", "wrong", "a stale epoch was not refused: a paused replica could write into streams")


async def _hints(hot: Hot, ref: Ref) -> Finding:
    heard = asyncio.Event()
    async with hot.listen(lambda hint: heard.set() if hint.session == ref.id else None):
        began = time.perf_counter()
        await hot.tell([Hint(ref.tenant, ref.id)])
        with suppress(TimeoutError):
            await asyncio.wait_for(heard.wait(), HINT_SECONDS)
    took = (time.perf_counter() - began) * 1000
    if not heard.is_set():
        return Finding("hints", "degraded", f"none arrived within {HINT_SECONDS:g} s: replicas poll instead")
    return Finding("hints", "ok", f"heard after {took:.1f} ms")


async def _cold(url: str) -> AsyncIterator[Finding]:
    cold = await stores.open_cold(url)
    try:
        content = b"What the doctor writes, it removes."
        prefix = f"{TENANT}/{RandomIds().session()}/"
        name, began = prefix + hashlib.sha256(content).hexdigest(), time.perf_counter()
        await asyncio.gather(cold.put(name, content), cold.put(name, content))
        whole = await cold.get(name) == content
        listed = list(await cold.list(prefix)) == [name]
        await cold.delete(prefix)
        gone = await cold.get(name) is None
        took = (time.perf_counter() - began) * 1000
        state: State = "ok" if whole and listed and gone else "wrong"
        detail = (
            f"written twice, read, listed, removed in {took:.1f} ms"
            if state == "ok"
            else f"read whole: {whole}, listed: {listed}, removed: {gone}"
        )
        yield Finding("cold", state, f"{redacted(url)}: {detail}")
        if isinstance(cold, Probed):
            yield await _creations(cold)
    finally:
        await stores.close(cold)


async def _creations(cold: Probed) -> Finding:
    if await cold.conditional():
        return Finding("cold conditions", "ok", "an object that is there was not created again")
    detail = "the store says yes to both of two creations of one object: it ignores If-None-Match; choose another"
    return Finding("cold conditions", "wrong", detail)
