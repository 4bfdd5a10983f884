"""The play in two acts: a replica is killed in the middle of a sentence, another one in the middle of a tool call.

Everything is observed from outside: the conversation through the public client, who answers through the store, the
effects through the ledger. The figures are `verdict`'s, the lines `stage`'s.
"""

import asyncio
import json
import os
import signal
import time
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from dalsegno.client import Client, Event, Retry, SessionHandle, text_of
from dalsegno.errors import DalsegnoError
from dalsegno.ops.demo.ledger import Ledger
from dalsegno.ops.demo.stage import Stage
from dalsegno.ops.demo.verdict import Seen, Sent, Verdict, judge
from dalsegno.ports import Member, Ref, Warm

WORDS_BEFORE_THE_BLOW = 14
RETRY = Retry(rounds=100, base=timedelta(milliseconds=10), longest=timedelta(milliseconds=250))
TENANT = "default"
FIRST = "What does dal segno mean?"
SECOND = "Book a table for two, please."
OWNER_WITHIN_SECONDS = 10.0


class NobodyAnswers(DalsegnoError):
    """The turn runs nowhere, so there is nobody to kill."""


class Play:
    """One conversation and what is done to it. `warm` is looked at, never written."""

    def __init__(self, client: Client, *, warm: Warm, ledger: Ledger, stage: Stage) -> None:
        self._client = client
        self._warm = warm
        self._ledger = ledger
        self._stage = stage
        self._seen: list[Seen] = []
        self._kills = 0
        self._killed_at: float | None = None
        self._name, self._heard = "", ""

    async def run(self) -> tuple[SessionHandle, Verdict]:
        """Both acts; the session, for those who want to look, and the figures."""
        session, stage = await self._client.sessions.create(), self._stage
        stage.heading("Act one: kill -9 in the middle of a sentence")
        await self._say(session, FIRST, words_before_the_blow=WORDS_BEFORE_THE_BLOW)
        stage.heading("Act two: kill -9 when the table is booked and nobody has written that down yet")
        self._ledger.on_booked = lambda: self._strike(session, "the table is booked, the answer is on its way")
        sent = await self._say(session, SECOND)
        self._ledger.on_booked = _nothing
        stage.line()
        stage.note("the client cannot be sure that its message arrived, and sends it again under the same key")
        again = await session.send(SECOND, key=_key(session, 2))
        stage.note(f"the same receipt: event {again.seq}, replayed: {str(again.replayed).lower()}")
        if again.turn != sent.turn:
            self._seen.append(Seen(Sent(again.seq, again.turn, SECOND)))
        keys = [asked.key for asked in self._ledger.asked]
        stage.note(f"the ledger was asked {len(keys)} times, under {len(set(keys))} key: booked {self._ledger.booked}")
        log = [json.loads(line) for line in (await session.export()).splitlines()]
        return session, judge(self._seen, log, kills=self._kills, bookings=self._ledger.booked, wanted=1)

    async def _say(self, session: SessionHandle, text: str, *, words_before_the_blow: int = 0) -> Sent:
        """Say it and follow the answer, whatever happens to whoever gives it."""
        self._stage.user(text)
        receipt = await session.send(text, key=_key(session, len(self._seen) + 1))
        seen, words = Seen(Sent(receipt.seq, receipt.turn, text)), 0
        self._seen.append(seen)
        self._name = (await self._owner(session)).id
        async with aclosing(session.stream(after=receipt.seq - 1, turn=receipt.turn)) as events:
            async for event in events:
                seen.events.append(event)
                await self._show(session, seen, event)
                words += event.type == "item.delta"
                if words == words_before_the_blow and event.type == "item.delta":
                    await self._strike(session, "in the middle of a sentence")
        return seen.sent

    async def _strike(self, session: SessionHandle, when: str) -> None:
        """Kill whoever answers, as hard as the system can."""
        owner = await self._owner(session)
        self._stage.blow(f"kill -9 {owner.pid}: that was {owner.id}, {when}")
        self._kills += 1
        self._killed_at = time.monotonic()
        os.kill(owner.pid, signal.SIGKILL)

    async def _show(self, session: SessionHandle, seen: Seen, event: Event) -> None:
        match event.type:
            case "turn.started" if self._killed_at is not None and event.data["attempt"] > 1:
                seen.takeovers_ms.append((time.monotonic() - self._killed_at) * 1000)
                self._killed_at = None
                self._name = (await self._owner(session)).id
                carried = event.data["carried"]
                way = f"goes on in the same sentence, {carried - 1} characters in" if carried else "goes on"
                self._stage.rescue(f"{self._name} {way}, {seen.takeovers_ms[-1]:.0f} ms after the kill")
                if carried:
                    self._stage.speaker(self._name)
            case "item.added" if event.data["item"]["type"] == "message":
                self._heard = ""
                self._stage.speaker(self._name)
            case "item.delta" if event.data["field"] == "text":
                self._heard += event.data["delta"]
                self._stage.word(event.data["delta"])
            case "item.dropped":
                self._heard = ""
                self._stage.note("what was said of the sentence is withdrawn")
            case "item.done":
                self._show_item(event.data["item"])
            case _:
                pass

    def _show_item(self, item: Any) -> None:
        if item["type"] == "function_call":
            self._stage.note(f"calls {item['name']}({item['arguments']})")
        elif item["type"] == "function_call_output":
            self._stage.note(f"→ {item['output']}")
        elif item["type"] == "message" and text_of(item) != self._heard:
            # nothing of it was streamed: the hot tier lost it, the log did not
            self._stage.speaker(self._name)
            self._stage.word(text_of(item))

    async def _owner(self, session: SessionHandle) -> Member:
        """Which replica holds the session's lease, by the store's own word."""
        deadline = time.monotonic() + OWNER_WITHIN_SECONDS
        while time.monotonic() < deadline:
            found = await self._warm.load(Ref(TENANT, session.id))
            for member in await self._warm.members():
                if found is not None and member.incarnation == found.owner:
                    return member
            await asyncio.sleep(0.005)
        raise NobodyAnswers("the turn runs nowhere")


def _key(session: SessionHandle, number: int) -> str:
    return f"{session.id}-{number}"


async def _nothing() -> None:
    return None
