"""LangGraph's checkpoints, whichever of LangGraph's savers keeps them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from dalsegno.agents.langgraph import Saver
from dalsegno.agents.langgraph.imports import items_of
from dalsegno.agents.langgraph.messages import packed
from dalsegno.core.item import STEP
from dalsegno.core.json import Json, JsonObject, checked
from dalsegno.errors import Refused
from dalsegno.ops.importing import STATE, Found, aside
from dalsegno.runtime.store import Store

INTERNAL = ("__", "branch:", "join:", "start:")
"""What the names of channels begin with that LangGraph makes for itself."""
THREADS = "SELECT DISTINCT thread_id FROM checkpoints ORDER BY thread_id"


class Checkpoints:
    """The latest state of each thread."""

    def __init__(self, saver: Any, connection: Any) -> None:
        self._saver = saver
        self._connection = connection
        self._serde = JsonPlusSerializer()

    async def names(self) -> AsyncIterator[str]:
        """Every thread."""
        for row in await asyncio.to_thread(lambda: self._connection.execute(THREADS).fetchall()):
            yield str(row["thread_id"] if isinstance(row, dict) else row[0])

    async def read(self, name: str) -> Found:
        """The messages of a thread, and the rest of its state as a record beside them."""
        found = await asyncio.to_thread(self._saver.get_tuple, _config(name))
        if found is None:
            return Found(wrong=["it has checkpoints of subgraphs only"])
        made, rest = Found(), dict[str, Any]()
        for channel, value in found.checkpoint["channel_values"].items():
            if channel == "messages" and isinstance(value, list):
                self._take(value, made)
            elif not channel.startswith(INTERNAL):
                rest[channel] = value
        if rest:
            output = {channel: self._plain(value) for channel, value in rest.items()}
            made.state = {"type": STEP, "name": STATE, "output": output}
        return made

    async def along(self, name: str, store: Store) -> None:
        """Its latest checkpoint and what its tasks have written: a graph with a `Saver` over the store goes on there.

        Raises `Refused` if the graph went on in both stores.
        """
        theirs = await asyncio.to_thread(self._saver.get_tuple, _config(name))
        saver = Saver(store)
        ours = await saver.aget_tuple(_config(name))
        if theirs is None or (ours is not None and ours.checkpoint["id"] >= theirs.checkpoint["id"]):
            return
        if ours is not None and not await asyncio.to_thread(
            self._saver.get_tuple, _config(name, ours.checkpoint["id"])
        ):
            raise Refused("session_exists", "the graph has gone on here: its checkpoints there are not taken over")
        checkpoint, versions = _counted(theirs.checkpoint), theirs.checkpoint["channel_versions"]
        written = await saver.aput(_config(name), checkpoint, theirs.metadata, _numbers(versions))
        tasks: dict[str, list[tuple[str, Any]]] = {}
        for task, channel, value in theirs.pending_writes or ():
            tasks.setdefault(task, []).append((channel, value))
        for task, writes in tasks.items():
            await saver.aput_writes(written, writes, task)

    def _take(self, messages: list[Any], made: Found) -> None:
        for place, message in enumerate(messages):
            try:
                if not isinstance(message, BaseMessage):
                    raise ValueError(f"a {type(message).__name__} is no message")
                made.items += [(item, aside(item)) for item in items_of(message, self._serde)]
            except ValueError as error:
                made.wrong.append(f"messages[{place}]: {error}")
                kept = aside({"details": packed(message, self._serde)})
                made.items.append((kept, kept))

    def _plain(self, value: Any) -> Json:
        """A value of the state as JSON, or as LangGraph's serialiser writes it."""
        try:
            return checked(value)
        except Refused:
            kept: JsonObject = {"details": packed(value, self._serde)}
            return kept


def _config(name: str, checkpoint: str = "") -> Any:
    chosen = {"checkpoint_id": checkpoint} if checkpoint else {}
    return {"configurable": {"thread_id": name, "checkpoint_ns": "", **chosen}}


def _counted(checkpoint: Any) -> Any:
    """The checkpoint with versions as numbers: its own saver writes a random part behind each."""
    seen = {node: _numbers(versions) for node, versions in checkpoint["versions_seen"].items()}
    return {**checkpoint, "channel_versions": _numbers(checkpoint["channel_versions"]), "versions_seen": seen}


def _numbers(versions: Any) -> dict[str, str | int | float]:
    return {channel: int(str(version).partition(".")[0]) for channel, version in versions.items()}
