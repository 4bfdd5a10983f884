"""The people of a world: they talk, repeat themselves, decide when asked, read along, and believe nothing they are
told.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import msgspec

from dalsegno.core.admit import Receipt
from dalsegno.core.event import Action, Event, SessionCreated
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Approval, Cancel, Input, Message, ToolResult
from dalsegno.core.turn import undecided
from dalsegno.errors import Refused, Unavailable
from dalsegno.ports import Ref
from dalsegno.testing.world.fleet import ConnectionLost, Host
from dalsegno.testing.world.ledger import Ledger
from dalsegno.testing.world.reader import Broken, Reader
from dalsegno.testing.world.script import Script, draw
from dalsegno.testing.world.watch import Watch

ON_BUSY: Any = ("queue", "queue", "queue", "steer", "steer", "interrupt", "rollback", "reject")
HARMLESS = frozenset({"session_busy", "queue_full", "no_such_action", "already_decided", "draining"})


class Ack(msgspec.Struct, frozen=True):
    """An input that was acknowledged: when it was first sent, when its receipt came."""

    ref: Ref
    key: str
    said: Input
    receipt: Receipt
    sent: float
    acked: float


class Town:
    """Who lives in a world, and what they know together. `over`: read to the end and go home."""

    def __init__(self, hosts: list[Host], watch: Watch, ledger: Ledger, chance: random.Random) -> None:
        self.hosts = hosts
        self.watch = watch
        self._ledger = ledger
        self.chance = chance
        self.acks: list[Ack] = []
        self.sent: dict[Ref, list[str]] = {}
        self.doomed: set[Ref] = set()
        """Sessions that somebody began to delete."""
        self.gone: dict[Ref, float] = {}
        """Sessions whose deletion was acknowledged, and when."""
        self.imported: dict[Ref, Sequence[Event]] = {}
        self.over = False
        self.hurry = False

    def happened(self, ref: Ref, call_id: str) -> bool:
        """What somebody finds out who looks whether a call of the running turn took effect."""
        session = self.watch.database.session(ref, self.watch.database.rows[ref])
        first = session.open[0].first if session.open else 0
        return self._ledger.applied[f"{ref.tenant}/{ref.id}/{turn_id(ref.id, first)}/{call_id}"] > 0

    def somewhere(self) -> Host:
        """Where the load balancer sends the next request."""
        up = [host for host in self.hosts if not host.process.dead]
        return self.chance.choice(up or self.hosts)

    async def tell(self, ref: Ref, said: Input, key: str) -> Receipt | None:
        """Say it until it is acknowledged (the receipt) or refused (None)."""
        sent = self.watch.weather.clock()
        self.sent.setdefault(ref, []).append(key)
        while True:
            host = self.somewhere()
            try:
                receipt = await host.request(
                    lambda service: service.admit(ref, said, key=key, opening=SessionCreated(user="u"))
                )
            except Refused as refused:
                expected = refused.code == "not_found" and ref in self.doomed
                if refused.code not in HARMLESS and not expected:
                    self.watch.breaks(f"session {ref.id}: {said} was refused: {refused}")
                return None
            except (ConnectionLost, Unavailable):
                await asyncio.sleep(0.05 + 0.2 * self.chance.random())
                continue
            if sent > self.gone.get(ref, sent):
                self.watch.breaks(f"session {ref.id} was deleted, and accepted {said} afterwards: {receipt}")
            self.acks.append(Ack(ref, key, said, receipt, sent, self.watch.weather.clock()))
            return receipt


class Person:
    """One session's client."""

    def __init__(self, town: Town, ref: Ref, *, messages: int, first: Script | None = None) -> None:
        self.town = town
        self.ref = ref
        self.chance = random.Random(f"{town.chance.random()}/{ref.id}")
        self._messages = messages
        self._first = first
        self._count = 0
        self._readers: list[asyncio.Task[None]] = []

    async def talk(self) -> None:
        """Say what there is to say, with pauses; then wait for those who read along."""
        for number in range(self._messages):
            await asyncio.sleep(self.chance.choice((0.01, 0.2, 0.6, 1.5)) * self.chance.random())
            script = self._first if number == 0 and self._first is not None else None
            await self.say(script, on_busy=self.chance.choice(ON_BUSY) if number else "queue")
            if self.chance.random() < 0.12:
                await asyncio.sleep(self.chance.random())
                await self._tell(Cancel(hide=self.chance.random() < 0.3))

    async def say(self, script: Script | None = None, *, on_busy: Any = "queue") -> Receipt | None:
        """One message, sometimes twice at once, sometimes again later."""
        script = script or draw(self.chance, self._name("m"))
        said, key = Message(script.text, on_busy=on_busy), self._name("k")
        twice = self.chance.random() < 0.25
        first, *_ = await asyncio.gather(*(self.town.tell(self.ref, said, key) for _ in range(2 if twice else 1)))
        if first is None:
            return None
        if self.chance.random() < 0.3:
            self._readers.append(asyncio.ensure_future(self._read_turn(first.turn)))
        if self.chance.random() < 0.2:
            await asyncio.sleep(self.chance.random())
            await self.town.tell(self.ref, said, key)
        return first

    async def decide(self) -> None:
        """Answer what a waiting turn asks; now and then not before somebody hurries, or never, if it expires."""
        stubborn: set[str] = set()
        while not self.town.over:
            await asyncio.sleep(0.1 + 0.5 * self.chance.random())
            for action in self._asked():
                if self.chance.random() < 0.15:
                    stubborn.add(action.call_id)
                if action.call_id not in stubborn or (self.town.hurry and action.expires_at is None):
                    await self._tell(self._answer(action))

    async def read(self) -> None:
        """Read along, cut off at random places and going on elsewhere; to the end of the log when it is over."""
        await self._read(Reader())

    async def gather(self) -> None:
        """Wait for the readers of single turns."""
        await asyncio.gather(*self._readers)

    def _asked(self) -> list[Action]:
        row = self.town.watch.database.rows.get(self.ref)
        if row is None:
            return []
        turn = self.town.watch.database.session(self.ref, row).running
        return [] if turn is None or turn.state != "waiting" else list(undecided(turn))

    def _answer(self, action: Action) -> Input:
        roll = self.chance.random()
        if action.type == "tool_result":
            return (
                ToolResult(action.call_id, output="from outside")
                if roll < 0.8
                else ToolResult(action.call_id, error="no")
            )
        if action.reason == "unknown_outcome" and self.town.happened(self.ref, action.call_id):
            return ToolResult(action.call_id, output="I looked: it happened")
        return Approval(action.call_id, "approve" if roll < 0.8 else "deny")

    async def _tell(self, said: Input) -> None:
        await self.town.tell(self.ref, said, self._name("k"))

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self.ref.id[-3:].lstrip('0')}.{self._count}"

    async def _read_turn(self, first: int) -> None:
        await self._read(Reader(after=first - 1, turn=first))

    async def _read(self, reader: Reader) -> None:
        turn = None if reader.turn is None else turn_id(self.ref.id, reader.turn)
        try:
            done = False
            while not done:
                done = await self._connect(reader, turn)
            reader.check_against(self.town.watch.log(self.ref))
        except Broken as broken:
            self.town.watch.breaks(f"session {self.ref.id}, a reader of turn {reader.turn}: {broken}")

    async def _connect(self, reader: Reader, turn: str | None) -> bool:
        """One connection; whether there is nothing more to read."""
        host = self.town.somewhere()
        connection = host.follow(self.ref, after=reader.cursor, turn=turn)
        patience = self.chance.choice((3, 10, 30, 100, 1000))
        try:
            while patience:
                patience -= 1
                if self.town.over and self._read_all(reader):
                    return True
                try:
                    async with asyncio.timeout(1.0):
                        frame = await connection.frame()
                except TimeoutError:
                    if not host.up or self.chance.random() < 0.2:
                        return False
                    continue
                if frame is None:
                    return self._ended(connection.over, reader)
                reader.take(frame)
        finally:
            host.hang_up(connection)
            await asyncio.sleep(0.02 + 0.3 * self.chance.random())
        return False

    def _ended(self, why: str, reader: Reader) -> bool:
        if "not_found" in why and self.ref in self.town.doomed:
            return True
        if why != "end":
            if "cursor_ahead" in why or "Unreadable" in why:
                raise Broken(f"the stream from {reader.cursor} was refused: {why}")
            return False
        if reader.turn is None and not reader.deleted:
            raise Broken("the session's stream came to an end")
        return True

    def _read_all(self, reader: Reader) -> bool:
        row = self.town.watch.database.rows.get(self.ref)
        return row is None or (reader.turn is None and reader.cursor.seq >= row.head)
