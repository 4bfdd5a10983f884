"""The composition root: configuration in, a running replica out, with all it is made of. The only place that wires.

Whatever is opened here is closed here, in the reverse order.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from dalsegno.core.idle import Policy
from dalsegno.errors import Unavailable
from dalsegno.http.app import App, build_app
from dalsegno.http.auth import Keys
from dalsegno.http.gate import Limits
from dalsegno.ops.config import Config
from dalsegno.ops.ids import RandomIds
from dalsegno.ops.logs import NamedAgent
from dalsegno.ops.telemetry import Figures, ReplicaRegistry, counted
from dalsegno.ops.tiers import Tiers, opened, places
from dalsegno.ops.version import VERSION
from dalsegno.ops.watched import WatchedBlobs, watched_hot
from dalsegno.ports import Agent, Member
from dalsegno.runtime.archivist import Archiving, Archivist
from dalsegno.runtime.replica import Replica, Tuning
from dalsegno.runtime.service import Service

log = logging.getLogger("dalsegno.build")


class Assembly(msgspec.Struct, frozen=True):
    """A replica that takes part in the fleet, and the application that speaks for it."""

    replica: Replica
    app: App


@asynccontextmanager
async def assembled(config: Config, agent: Agent) -> AsyncIterator[Assembly]:
    """A replica at work, until the context ends. Raises `ConfigError` or `Unavailable` when it cannot be."""
    figures, ids = Figures(ReplicaRegistry(config.replica_id)), RandomIds()
    async with opened(places(config, hot=config.hot), counting=lambda warm: counted(warm, figures)) as tiers:
        watches = figures.watches
        tiers = msgspec.structs.replace(
            tiers, hot=watched_hot(tiers.hot, watches.hot), cold=WatchedBlobs(tiers.cold, watches.cold)
        )
        member = Member(ids.incarnation(), config.replica_id, os.getpid())
        replica = _replica(member, agent, tiers, config)
        figures.introduce(version=VERSION, running=lambda: replica.turns)
        service = Service(replica, warm=tiers.warm, blobs=tiers.cold, ids=ids, watches=watches)
        keys = Keys(config.api_keys)
        app = build_app(service, keys=keys, limits=limits(config), registry=figures.registry, version=VERSION)
        archiving = Archiving(_archivist(replica, tiers, config))
        await replica.start()
        archiving.start()
        watch = asyncio.get_running_loop().create_task(figures.watch_loop())
        try:
            yield Assembly(replica, app)
        finally:
            watch.cancel()
            await archiving.stop()
            await _leave(replica)


def tuning(config: Config) -> Tuning:
    """The runtime's limits."""
    return Tuning(
        lease_ttl=config.lease_ttl,
        turns_max=config.max_turns,
        turn_deadline=config.turn_timeout,
        context_limit_bytes=config.max_context,
        inline_max_bytes=config.max_inline,
        queue_max=config.max_queue,
        claim_every=config.poll_interval,
        drain_within=config.drain_timeout,
        settling=config.settling,
    )


def policy(config: Config) -> Policy:
    """What becomes of sessions that nobody touches."""
    return Policy(config.archive_after or None, config.sweep_after or None)


def limits(config: Config) -> Limits:
    """The HTTP room's limits."""
    return Limits(
        body=config.max_body,
        import_body=config.max_import,
        requests=config.max_requests,
        streams=config.max_streams,
        streams_per_tenant=config.max_streams_per_tenant,
    )


def _replica(member: Member, agent: Agent, tiers: Tiers, config: Config) -> Replica:
    agents = {config.agent_name: NamedAgent(agent)}
    return Replica(member, agents, warm=tiers.warm, hot=tiers.hot, blobs=tiers.cold, tuning=tuning(config))


def _archivist(replica: Replica, tiers: Tiers, config: Config) -> Archivist:
    name = replica.member.incarnation
    return Archivist(tiers.warm, tiers.cold, eraser=replica.eraser, policy=policy(config), incarnation=name)


async def _leave(replica: Replica) -> None:
    try:
        await replica.stop()
    except Unavailable as error:
        log.warning("left without a word: %s", error)
