"""Dalsegno in this process: one replica, without HTTP. PostgreSQL is its log and its hot tier, or SQLite is.

A caller's turn is what `POST …/inputs` with `Accept: text/event-stream` does: the message is admitted, and the turn's
stream is read to its end, whichever replica runs it. The session's first message makes the session.
"""

import tempfile
import uuid
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from bench.content import mark_of
from bench.peers.serve import Shop, answer, message, order, serve
from bench.workload import TUNING, bench
from dalsegno import Context, Refused, ToolCall, Turn, __version__, tool
from dalsegno.core.codec import decode
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import Event, ItemDone, SessionCreated, TurnFailed
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Message
from dalsegno.core.item import text_of
from dalsegno.ports import Call, Ref

WHOLE = msgspec.structs.replace(TUNING, context_limit_bytes=1 << 30)
"""The peers show a model all that was said, so this one does, too."""
PAGE = 1000


class Ours:
    """A `Peer`. `effect` is the class of its one tool."""

    async def open(self, url: str, *, name: str, options: dict[str, str], shop: Shop) -> dict[str, str]:
        """Join the fleet of that database."""

        @tool("keyed" if options.get("effect", "keyed") == "keyed" else "once")
        async def look_up(call: Call, order: str) -> str:
            """What a shop knows of an order."""
            return shop.look_up(order, call.key)

        async def run(turn: Turn) -> None:
            while (reply := await turn.generate(_model, tools=[look_up])).calls:
                await turn.perform(reply)

        self._stack = AsyncExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        world = bench(folder, name=name, warm_url=url, hot_url=url, runs=run, tuning=WHOLE)
        self._service = (await self._stack.enter_async_context(world)).service
        return {"dalsegno": __version__}

    async def turn(self, session: str, mark: str) -> str:
        """Admit, and follow the turn's stream to its end."""
        ref, said = _ref(session), ""
        receipt = await self._service.admit(ref, Message(message(mark)), key=uuid.uuid4().hex, opening=SessionCreated())
        turn = turn_id(ref.id, receipt.turn)
        async for frame in await self._service.follow(ref, after=Cursor(receipt.seq), turn=turn):
            if isinstance(frame.what, Event):
                match decode(frame.what):
                    case ItemDone(item):
                        said = text_of(item)
                    case TurnFailed(error):
                        raise RuntimeError(f"{error}")
        return said

    async def burst(self, session: str, mark: str) -> str:
        """There is nothing to do about other writers."""
        return await self.turn(session, mark)

    async def history(self, session: str) -> list[tuple[str, str]]:
        """The conversation, page by page; a result is known by its call's id, also one that says nobody knows."""
        found: list[tuple[str, str]] = []
        marks: dict[str, str] = {}
        after: int | None = 0
        while after is not None:
            items, after = await self._service.items(_ref(session), after=after, limit=PAGE)
            for item in items:
                call = str(item.get("call_id"))
                match item["type"]:
                    case "function_call":
                        marks[call] = mark_of(msgspec.json.decode(str(item["arguments"]))["order"])
                        found.append(("c", marks[call]))
                    case "function_call_output":
                        found.append(("r", marks[call]))
                    case "message":
                        found.append(("u" if item["role"] == "user" else "a", mark_of(text_of(item))))
        return found

    async def go_on(self, session: str, mark: str) -> str:
        """Nobody has to."""
        raise Refused("invalid_request", "turns go on by themselves")

    async def close(self) -> None:
        """Leave the fleet."""
        await self._stack.aclose()


async def _model(context: Context) -> AsyncGenerator[str | ToolCall, None]:
    said = next(item for item in reversed(context.items) if item.get("role") == "user")
    mark = mark_of(text_of(said))
    if context.items[-1]["type"] == "function_call_output":
        yield answer(mark)
    else:
        yield ToolCall("look_up", {"order": order(mark)})


def _ref(session: str) -> Ref:
    return Ref("bench", str(uuid.uuid5(uuid.NAMESPACE_URL, session)))


if __name__ == "__main__":
    serve(Ours)
