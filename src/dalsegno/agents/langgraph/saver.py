"""LangGraph's checkpointer over our log: a thread is a session, its checkpoints are records in the session's log.

What a run was shown when it began is noted in the run's own config. A run that writes after another one has written is
refused (`Conflict`), and what it wrote is not in the way of the one that was faster.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.types import RESUME

from dalsegno.agents.langgraph.book import Book, Make, Threads
from dalsegno.agents.langgraph.codec import Codec
from dalsegno.agents.langgraph.configs import Where, config_of, matches
from dalsegno.agents.langgraph.record import Blob, Drop, Put, Slot, Writes, blobs_of
from dalsegno.agents.langgraph.thread import Checkpoint as Kept
from dalsegno.agents.langgraph.thread import Given, Row, Thread
from dalsegno.errors import Conflict, DalsegnoError

T = TypeVar("T")

RUN = "__dalsegno_run"
"""Where a run's config says who it is and up to which event it was shown the thread."""
INTERNAL = "__pregel_"
"""How LangGraph marks what its runs put into their configs."""
COPIES = 100


class Checkpointer(BaseCheckpointSaver[int]):
    """Checkpoints of LangGraph in sessions. Async; the sync methods serve other threads than the loop's own."""

    def __init__(self, threads: Threads, *, serde: Any = None) -> None:
        super().__init__(serde=serde)
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._by = threads.name()
        self._shown: dict[str, int] = {}
        self._readable: set[Blob] = set()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the newest of its namespace."""
        where = Where(config)
        book = self._threads.book(where.thread)
        thread = await book.refresh()
        self._note(config, where, book.head)
        found = thread.find(where.ns, where.checkpoint)
        if found is None and (where.checkpoint is not None or RUN not in where.configurable):
            thread = await book.everything()
            found = thread.find(where.ns, where.checkpoint)
        return None if found is None else self._codec.found(where.thread, thread, found)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The checkpoints that match, newest first; without a config those of every thread."""
        border = None if before is None else before["configurable"].get("checkpoint_id")
        left = limit
        async for name in self._names(config):
            thread = await self._threads.book(name).everything()
            for kept in thread.all():
                if left is not None and left <= 0:
                    return
                if not matches(kept, config, border):
                    continue
                found = self._codec.found(name, thread, kept)
                metadata = cast(Mapping[str, Any], found.metadata)
                if all(metadata.get(key) == value for key, value in (filter or {}).items()):
                    left = None if left is None else left - 1
                    yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Record a checkpoint: what differs from its parent.

        Raises `Conflict` when somebody else wrote to the thread since this run began.
        """
        where = Where(config)
        given = self._codec.given(where, checkpoint, get_checkpoint_metadata(config, metadata))

        def make(thread: Thread) -> Put:
            put = thread.put(given, by=self._check(thread, where))
            for channel, change in put.values.items():
                self._codec.check(blobs_of(change), f"the state's {channel!r}")
            return put

        await self._write(where, make)
        return config_of(where.thread, where.ns, given.id)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Record what a task wrote on top of a checkpoint. Raises as `aput` does."""
        where = Where(config)
        slots = [
            Slot(
                WRITES_IDX_MAP.get(channel, index),
                channel,
                self._codec.dump(value, f"what a node wrote to {channel!r}"),
            )
            for index, (channel, value) in enumerate(writes)
        ]

        def make(thread: Thread) -> Writes | None:
            by = self._check(thread, where)
            news = thread.news(Writes(where.ns, where.checkpoint or "", by, task_id, task_path, tuple(slots)))
            for slot in news.slots if news is not None else ():
                self._codec.check([slot.blob], f"what a node wrote to {slot.channel!r}")
            return news

        await self._write(where, make)

    async def adelete_thread(self, thread_id: str) -> None:
        """Remove a thread for good: its session is deleted."""
        self._shown.pop(str(thread_id), None)
        await self._threads.delete(str(thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints of these runs, whatever thread they are in. Looks through every thread."""
        wanted = set(run_ids)
        if wanted:
            async for name in self._threads.every():
                thread = await self._threads.book(name).everything()
                await self._drop(name, [kept for kept in thread.all() if self.metadata(kept).get("run_id") in wanted])

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy every checkpoint of a thread, and its writes, to another one."""
        source = await self._threads.book(str(source_thread_id)).everything()
        where = Where(config_of(str(target_thread_id), "", None))
        copies = [_copies(source, kept, by=self._by) for kept in reversed(source.all())]
        for first in range(0, len(copies), COPIES):
            part = [make for made in copies[first : first + COPIES] for make in made]
            await asyncio.gather(*(self._write(where, make) for make in part))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Remove all checkpoints of these threads but the newest of each namespace (`keep_latest`), or all
        (`delete`).
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"there is no strategy {strategy!r}")
        for name in map(str, thread_ids):
            thread = await self._threads.book(name).everything()
            keep = strategy == "keep_latest"
            await self._drop(name, [kept for kept in thread.all() if not (keep and thread.find(kept.ns) is kept)])

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`aget_tuple`, from another thread."""
        return self._wait(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """`alist`, from another thread."""

        async def all_of_them() -> "list[CheckpointTuple]":
            return [found async for found in self.alist(config, filter=filter, before=before, limit=limit)]

        return iter(self._wait(all_of_them()))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`aput`, from another thread."""
        return self._wait(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """`aput_writes`, from another thread."""
        self._wait(self.aput_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """`adelete_thread`, from another thread."""
        self._wait(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`adelete_for_runs`, from another thread."""
        self._wait(self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`acopy_thread`, from another thread."""
        self._wait(self.acopy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`aprune`, from another thread."""
        self._wait(self.aprune(thread_ids, strategy=strategy))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            work.close()
            raise DalsegnoError("this checkpointer's own event loop is running here: use ainvoke, astream, aget_state")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _names(self, config: RunnableConfig | None) -> AsyncIterator[str]:
        if config is not None and "thread_id" in config["configurable"]:
            yield str(config["configurable"]["thread_id"])
            return
        async for name in self._threads.every():
            yield name

    def _note(self, config: RunnableConfig, where: Where, head: int) -> None:
        """Leave word in the config of a run that begins: all that it writes is built on what it is shown now."""
        conf = where.configurable
        if not any(key.startswith(INTERNAL) for key in conf):
            self._shown[where.thread] = head
        elif RUN not in conf or (not where.ns and where.checkpoint is None):
            config["configurable"][RUN] = (self._threads.name(), head)

    def _check(self, thread: Thread, where: Where) -> str:
        """Who writes. Raises `Refused` if they were not shown what others have written since."""
        by, shown = where.configurable.get(RUN) or (self._by, self._shown.get(where.thread))
        if shown is not None and thread.foreign(by) > shown:
            raise Conflict("version_mismatch", f"thread {where.thread}: somebody else wrote to it since it was read")
        return str(by)

    async def _write(self, where: Where, make: Make) -> None:
        await self._threads.book(where.thread).write(make)

    async def _drop(self, name: str, gone: "Sequence[Kept]") -> None:
        if gone:
            record = Drop(tuple(kept.name for kept in gone))
            await self._threads.book(name).write(lambda thread: record)

    def book(self, thread: str) -> Book:
        """The thread's book."""
        return self._threads.book(thread)

    def metadata(self, kept: Kept) -> dict[str, Any]:
        """What LangGraph, and who configured the run, said about a checkpoint."""
        return cast("dict[str, Any]", self._codec.load(kept.metadata))

    async def resumed(self, thread: str) -> int:
        """How many answers the newest checkpoints of a thread have been given."""
        found = await self._threads.book(thread).refresh()
        pending = [slot for kept in found.newest() for _, slot in found.pending(kept.ns, kept.id)]
        values = [self._codec.load(slot.blob) for slot in pending if slot.channel == RESUME]
        return sum(len(value) if isinstance(value, list) else 1 for value in values)

    @property
    def _codec(self) -> Codec:
        return Codec(self.serde, self._readable)


def _copies(source: Thread, kept: Kept, *, by: str) -> "list[Make]":
    values = {name: value.elements() if isinstance(value, Row) else value for name, value in kept.values.items()}
    given = Given(kept.ns, kept.id, kept.parent, kept.metadata, kept.rest, kept.versions, kept.seen, values)
    makes: list[Make] = [lambda thread: thread.put(given, by=by)]
    for written in source.written(kept.ns, kept.id):
        copied = msgspec.structs.replace(written, by=by)
        makes.append(partial(Thread.news, given=copied))
    return makes
