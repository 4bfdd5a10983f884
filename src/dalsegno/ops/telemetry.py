"""Telemetry: what a replica counts. Wraps the ports, so that the runtime knows nothing of it.

Figures come from what was committed: a turn counts as ended when the event that says so is in the log. Names of
sessions and tenants are never labels.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector

from dalsegno.core.append import Decide, Decision, Known, Write
from dalsegno.core.claim import Claimed
from dalsegno.core.event import TERMINAL, Event
from dalsegno.core.session import Session
from dalsegno.ports import Member, Page, Query, Ref, Transaction, Transactions, Warm
from dalsegno.runtime.watch import Watch, Watches

R = TypeVar("R")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class ReplicaRegistry(CollectorRegistry):
    """A registry whose every series says whose it is: replicas that share a port must not be taken for one."""

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica

    def collect(self) -> Iterator[Metric]:
        """Everything that is registered, as of now."""
        for metric in super().collect():
            metric.samples = [
                sample._replace(labels={**sample.labels, "replica": self._replica}) for sample in metric.samples
            ]
            yield metric


class Figures:
    """A replica's counters and histograms, in a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        self._created = Counter("dalsegno_turns_created", "Messages admitted as turns", registry=registry)
        self._started = Counter("dalsegno_turns_started", "Attempts begun", ["kind"], registry=registry)
        self._ended = Counter("dalsegno_turns_ended", "Turns ended", ["status"], registry=registry)
        self._undone = Counter("dalsegno_calls_undone", "Calls undone, or given up", ["status"], registry=registry)
        self._parked = Counter("dalsegno_turns_parked", "Turns that began to wait for somebody", registry=registry)
        self.claims = Counter("dalsegno_claims", "Sessions taken from the store", registry=registry)
        self.takeovers = Counter("dalsegno_takeovers", "Sessions taken over from a dead replica", registry=registry)
        self.archived = Counter("dalsegno_sessions_archived", "Sessions moved to the cold tier", registry=registry)
        self.returned = Counter("dalsegno_sessions_returned", "Sessions brought back from it", registry=registry)
        self.buried = Counter("dalsegno_replicas_buried", "Dead peers noticed", registry=registry)
        self.commits = Histogram(
            "dalsegno_commit_seconds", "Time to a durable commit", ["outcome"], registry=registry, buckets=BUCKETS
        )
        self._failures = Counter(
            "dalsegno_tier_failures", "Calls that a tier did not answer", ["tier"], registry=registry
        )
        self._failing = Gauge(
            "dalsegno_tier_failing", "1 while a tier fails, now and then or always", ["tier"], registry=registry
        )
        self.watches = Watches(*(self._watch(tier) for tier in ("warm", "hot", "cold")))
        self._running = Gauge("dalsegno_turns_running", "Turns that run here now", registry=registry)
        self._lag = Gauge("dalsegno_loop_lag_seconds", "How late the event loop last was", registry=registry)
        self._up = Gauge("dalsegno_replica", "Always 1; says which version this is", ["version"], registry=registry)

    def introduce(self, *, version: str, running: Callable[[], int]) -> None:
        """Say which version this is and how many turns run."""
        self._up.labels(version).set(1)
        self._running.set_function(running)

    def _watch(self, tier: str) -> Watch:
        watch = Watch(tier, count=self._failures.labels(tier).inc)
        self._failing.labels(tier).set_function(lambda: 1 if watch.trouble else 0)
        return watch

    def note(self, events: Iterable[Event]) -> None:
        """Count what was committed here."""
        for event in events:
            match event.type:
                case "turn.created":
                    self._created.inc()
                case "turn.started":
                    self._started.labels("first" if b'"attempt":1,' in event.data else "again").inc()
                case "turn.waiting":
                    self._parked.inc()
                case "tool.undone":
                    self._undone.labels("given_up" if b'"status":"incomplete"' in event.data else "done").inc()
                case kind if kind in TERMINAL:
                    self._ended.labels(kind.removeprefix("turn.")).inc()
                case _:
                    pass

    async def watch_loop(self, *, every: timedelta = timedelta(seconds=1)) -> None:
        """Measure how late the event loop is, until cancelled."""
        loop, seconds = asyncio.get_running_loop(), every.total_seconds()
        while True:
            due = loop.time() + seconds
            await asyncio.sleep(seconds)
            self._lag.set(max(0.0, loop.time() - due))


class CountedWarm:
    """The warm tier, counted. Every promise is the inner store's."""

    def __init__(self, inner: Warm, figures: Figures) -> None:
        self._inner = inner
        self._figures = figures
        self._watch = figures.watches.warm

    async def commit(self, ref: Ref, decide: Decide[R], *, digest: bytes | None = None) -> Decision[R]:
        began, outcome = time.perf_counter(), "unavailable"
        try:
            decision = await self._watch.seen(self._inner.commit(ref, decide, digest=digest))
            outcome = type(decision).__name__.lower()
        finally:
            self._figures.commits.labels(outcome).observe(time.perf_counter() - began)
        if isinstance(decision, Write):
            self._figures.note(decision.events)
        return decision

    async def load(self, ref: Ref) -> Session | None:
        return await self._watch.seen(self._inner.load(ref))

    async def read(self, ref: Ref, *, after: int, limit: int = 1000) -> Sequence[Event]:
        return await self._watch.seen(self._inner.read(ref, after=after, limit=limit))

    async def heads(self, refs: Sequence[Ref]) -> Mapping[Ref, int]:
        return await self._watch.seen(self._inner.heads(refs))

    async def claim(self, owner: str, *, limit: int, chances: int = 1) -> Sequence[Claimed]:
        claims = await self._watch.seen(self._inner.claim(owner, limit=limit, chances=chances))
        for found in claims:
            self._figures.note(found.events)
            if found.lease is not None:
                self._figures.claims.inc()
                self._figures.takeovers.inc(1 if found.lease.orphaned else 0)
        return claims

    async def list(self, tenant: str, query: Query) -> Page:
        return await self._watch.seen(self._inner.list(tenant, query))

    async def erase(self, ref: Ref, epoch: int) -> None:
        await self._inner.erase(ref, epoch)

    async def unerased(self, *, after: Ref | None = None, limit: int) -> Mapping[Ref, int]:
        return await self._inner.unerased(after=after, limit=limit)

    async def walk(self, *, after: Ref | None = None, limit: int) -> Sequence[Session]:
        return await self._inner.walk(after=after, limit=limit)

    async def keys(self, ref: Ref) -> Mapping[bytes, Known]:
        return await self._inner.keys(ref)

    async def shelve(self, ref: Ref, shelf: bytes, *, head: int, epoch: int) -> bool:
        done = await self._inner.shelve(ref, shelf, head=head, epoch=epoch)
        self._figures.archived.inc(1 if done else 0)
        return done

    async def unshelve(self, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
        await self._inner.unshelve(ref, shelf, events)
        self._figures.returned.inc()

    async def join(self, member: Member, *, ttl: timedelta) -> None:
        await self._inner.join(member, ttl=ttl)

    async def bury(self) -> Sequence[str]:
        dead = await self._watch.seen(self._inner.bury())
        self._figures.buried.inc(len(dead))
        return dead

    async def members(self) -> Sequence[Member]:
        return await self._watch.seen(self._inner.members())

    async def holdings(self, incarnation: str) -> Sequence[Ref]:
        return await self._watch.seen(self._inner.holdings(incarnation))

    async def leave(self) -> None:
        await self._inner.leave()

    async def close(self) -> None:
        await self._inner.close()


class CountedTransactions(CountedWarm):
    """A warm tier whose database tools may share."""

    def __init__(self, inner: Warm, transactions: Transactions, figures: Figures) -> None:
        super().__init__(inner, figures)
        self._transactions = transactions

    @property
    def alone(self) -> bool:
        return self._transactions.alone

    def transaction(self, ref: Ref, *, timeout: timedelta) -> AbstractAsyncContextManager[Transaction]:
        return self._transactions.transaction(ref, timeout=timeout)


def counted(warm: Warm, figures: Figures) -> Warm:
    """The same tier, counted; it offers transactions if and only if it did before."""
    if isinstance(warm, Transactions):
        return CountedTransactions(warm, warm, figures)
    return CountedWarm(warm, figures)
