"""Logs that can have happened: a random walk over the core's own decisions. Knows no store, no loop and no clock.

A program is a list of (operation, number) pairs. Each operation that is possible in the state of the session is carried
out the way a store would; the others are passed over. So a failing program shrinks to the few steps that matter.
"""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from dalsegno.core import codec
from dalsegno.core import item as items
from dalsegno.core.admit import Admission, Admitted, admit
from dalsegno.core.append import Appended, Decision, Draft, Expect, Keep, Known, Refusal, Then, Write, append
from dalsegno.core.bring import Added, Brought, bring, key_of, parse_items
from dalsegno.core.claim import Claimed, claim
from dalsegno.core.event import (
    Action,
    ContextSummarized,
    Data,
    Event,
    ItemDone,
    SessionCreated,
    ToolIntent,
    ToolUndone,
    TurnCompleted,
    TurnError,
    TurnFailed,
    TurnStarted,
    TurnUndoing,
    TurnWaiting,
)
from dalsegno.core.ids import effect_key, turn_id
from dalsegno.core.input import Approval, Cancel, Input, Message, ToolResult, key_for
from dalsegno.core.json import Json, JsonObject
from dalsegno.core.lease import Lease
from dalsegno.core.saga import owed
from dalsegno.core.session import Session
from dalsegno.core.step import journal
from dalsegno.core.view import said

SESSION = "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b"
TENANT = "acme"
ON_BUSY: Any = ("queue", "reject", "interrupt", "rollback", "steer")
OPERATIONS = (
    *("say", "steer", "stop", "model", "model", "calls", "calls", "result", "result", "result", "end", "fail"),
    *("crash", "park", "answer", "release", "claim", "claim", "partial", "summarize", "step", "items", "retry"),
    *("undo", "undo"),
    *("bring", "bring", "bring", "bring", "pop", "pop", "clear"),
)

Program = list[tuple[str, int]]
programs: st.SearchStrategy[Program] = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 11)), max_size=60
).map(lambda program: [("bring" if len(program) % 3 == 2 else "say", 1), *program])


class Walk:
    """One session as its store would hold it: `session` is the row, `events` the log."""

    def __init__(self) -> None:
        self.now = 1_000
        self.count = 0
        self.session: Session | None = None
        self.events: list[Event] = []
        self.keys: dict[bytes, Known] = {}
        self.lease: Lease | None = None
        self.receipts: list[tuple[Admission, Admitted]] = []
        self.refusals: list[Refusal] = []

    def play(self, program: Program) -> "Walk":
        for name, number in program:
            self.now += number
            getattr(self, f"_{name}")(number)
        return self

    def write(self, decision: Decision[Any]) -> Any:
        """What a store does with a decision."""
        if isinstance(decision, Write):
            assert [event.seq for event in decision.events] == list(
                range(len(self.events) + 1, len(self.events) + 1 + len(decision.events))
            )
            self.session = decision.session
            self.events += decision.events
            for digest, known in decision.keys:
                self.keys.setdefault(digest, known)
        if isinstance(decision, Write | Keep):
            return decision.result
        if isinstance(decision, Refusal):
            self.refusals.append(decision)
        return None

    def admit(self, said: Input, *, key: str | None = None, taker: str | None = None) -> Admitted | None:
        admission = Admission(
            TENANT,
            SESSION,
            said,
            key_for(key, said) if key else None,
            taker=taker,
            opening=SessionCreated(),
            queue_max=5,
        )
        known = self.keys.get(admission.key.digest) if admission.key else None
        admitted: Admitted | None = self.write(admit(self.session, known, self.now, admission=admission))
        if admitted is not None:
            self.receipts.append((admission, admitted))
            if admitted.lease is not None:
                self.lease = admitted.lease
        return admitted

    def append(self, *data: Data, then: Then = "hold", seen: int | None = None) -> Appended | None:
        if self.lease is None:
            return None
        drafts = [Draft(one, self.lease.turn) for one in data]
        decision = append(self.session, self.now, lease=self.lease, drafts=drafts, then=then, expect=Expect(seen=seen))
        appended: Appended | None = self.write(decision)
        if appended is not None:
            self.lease = appended.lease
        return appended

    def claim(self) -> None:
        """Another replica takes the session, and says so, as `runtime.turn.adopt` does."""
        found: Claimed | None = self.write(claim(self.session, self.now, owner=f"replica-{self.number()}"))
        self.lease = None if found is None else found.lease
        if self.lease is not None and self.lease.orphaned:
            self.append(TurnStarted(self.lease.attempt, self.lease.epoch, carried=0))

    def number(self) -> int:
        self.count += 1
        return self.count

    # ------------------------------------------------------------------------------------------- the operations

    def _say(self, number: int) -> None:
        said = Message(f"message {self.number()}", on_busy=("queue", "reject")[number % 2] if number > 9 else "queue")
        self.admit(said, key=f"key {self.count}", taker="replica-0" if number % 2 else None)

    def _items(self, number: int) -> None:
        part: Json = {"type": "input_text", "text": f"part {self.number()}"}
        self.admit(Message(items=[{"type": "message", "role": "user", "content": [part]}] * (1 + number % 2)))

    def _retry(self, number: int) -> None:
        if self.receipts:
            admission, first = self.receipts[number % len(self.receipts)]
            if admission.key is not None:
                again = self.admit(admission.said, key=admission.key.text)
                assert again is not None
                assert again.receipt.replayed
                assert again.receipt.seq == first.receipt.seq
                self.receipts.pop()

    def _steer(self, number: int) -> None:
        self.admit(Message(f"message {self.number()}", on_busy="steer"))

    def _stop(self, number: int) -> None:
        if number % 3:
            self.admit(Message(f"message {self.number()}", on_busy=("interrupt", "rollback")[number % 2]))
        elif self.session is not None:
            self.admit(Cancel(hide=number % 2 == 1))

    def _item_id(self, kind: str) -> str:
        return f"{kind}_{self.number()}"

    def _model(self, number: int) -> None:
        said = [items.reasoning("hm", item_id=self._item_id("rs"))] if number % 2 else []
        said.append(items.message(f"answer {number}", item_id=self._item_id("msg")))
        asked = len(self.events) - number % 3  # the last of the log came while it was answering
        made = [ItemDone(item, step=f"model#{self.count}", streamed=True) for item in said]
        self.append(replace(made[0], through=asked), *made[1:])

    def _calls(self, number: int) -> None:
        if self.lease is None:
            return
        turn, made = turn_id(SESSION, self.lease.turn), []
        for _ in range(1 + number % 3):
            call_id = f"call_{self.number()}"
            made.append(items.call(call_id, "tool", "{}", item_id=f"fc_{self.count}"))
        intents = [
            ToolIntent(
                str(c["call_id"]),
                "tool",
                "once",
                effect_key(TENANT, SESSION, turn, str(c["call_id"])),
                undo=number % 4 == 3,
            )
            for c in made
        ]
        self.append(*(ItemDone(call, step=f"model#{self.count}", streamed=True) for call in made), *intents)

    def unanswered(self) -> list[str]:
        """Calls of the leased turn that have no result."""
        open_calls: dict[str, None] = {}
        for event in self.events:
            data = codec.decode(event)
            if isinstance(data, ItemDone) and self.lease is not None and event.turn == self.lease.turn:
                if data.item["type"] == items.CALL:
                    open_calls[str(data.item["call_id"])] = None
                elif data.item["type"] == items.OUTPUT:
                    open_calls.pop(str(data.item["call_id"]))
        return list(open_calls)

    def _result(self, number: int) -> None:
        waiting = self.unanswered()
        if waiting:
            call_id = waiting[number % len(waiting)]
            self.append(ItemDone(items.output(call_id, f"result {number}", item_id=self._item_id("fco"))))

    def _end(self, number: int) -> None:
        self.append(
            TurnCompleted({"output_tokens": number}), then="take", seen=len(self.events) if number % 2 else None
        )

    def _fail(self, number: int) -> None:
        self.append(TurnFailed(TurnError("ValueError", "no")), then="take")

    def _undo(self, number: int) -> None:
        """Begin to undo a turn that was cancelled, or fails; or undo one call more; or end it."""
        turn = None if self.lease is None or self.session is None else self.session.turn(self.lease.turn)
        if turn is None or not turn.owes:
            return
        if turn.must_undo:
            self.append(TurnUndoing(None if turn.cancel else TurnError("ValueError", "no")))
        left = owed(journal(self.events, turn.first))
        if left:
            self.append(ToolUndone(left[0].call_id, "tool", left[0].key, ("completed", "incomplete")[number % 2]))
        else:
            told = {**items.user_message("undone", item_id=self._item_id("msg")), "role": "developer"}
            self.append(ItemDone(told), TurnFailed(TurnError("ValueError", "no")), then="take")

    def _crash(self, number: int) -> None:
        if self.lease is not None:
            self.claim()

    def _claim(self, number: int) -> None:
        free = self.lease is None and self.session is not None and self.session.owner is None
        if free and self.session is not None and self.session.ready_at == 0:
            self.claim()

    def _park(self, number: int) -> None:
        waiting = self.unanswered()
        if waiting:
            kind: Any = ("approval", "tool_result")[number % 2]
            self.append(TurnWaiting(tuple(Action(kind, call_id, "tool") for call_id in waiting)), then="release")

    def _answer(self, number: int) -> None:
        if self.session is None or self.session.running is None:
            return
        for action in self.session.running.actions:
            if action.type == "approval":
                self.admit(Approval(action.call_id, "approve" if number % 2 else "deny"))
            else:
                self.admit(ToolResult(action.call_id, output=f"outside {number}"))
            return

    def _release(self, number: int) -> None:
        self.append(then="release")

    def _partial(self, number: int) -> None:
        make = (items.message, items.reasoning)[number % 2]
        self.append(ItemDone(make("half an ans", item_id=self._item_id("it"), status="incomplete"), streamed=True))

    def _summarize(self, number: int) -> None:
        if self.lease is not None and self.lease.turn > 1:
            note = {**items.user_message("earlier: …", item_id=self._item_id("sum")), "role": "developer"}
            self.append(ContextSummarized(self.lease.turn - 1 - number % 2, note))

    def brought(self, *given: JsonObject, after: int | None = None, expect: int | None = None) -> Added | None:
        """Items from outside, under a key of their own."""
        data = parse_items(given)
        key = key_of(f"key {self.number()}", data)
        what = Brought(TENANT, SESSION, data, expect=expect, key=key, after=after)
        added: Added | None = self.write(bring(self.session, self.keys.get(key.digest), self.now, brought=what))
        if added is not None and (data or after is not None):
            again = self.write(bring(self.session, self.keys[key.digest], self.now, brought=what))
            assert again.head == added.head
        return added

    def _hush(self) -> None:
        """End whatever is open, so that somebody outside may speak."""
        for _ in range(20):
            if self.session is None or not self.session.open:
                return
            if self.lease is None and self.session.ready_at != 0:
                self.admit(Cancel())
            elif self.lease is None:
                self.claim()
            self._undo(0)
            self._end(0)

    def _bring(self, number: int) -> None:
        if number > 5:
            self._hush()
        asked: JsonObject = {"role": "user", "content": f"message {self.number()}"}
        told: JsonObject = items.message(f"answer {number}", item_id=self._item_id("msg"))
        calls: list[JsonObject] = [
            {"type": "function_call", "call_id": f"call_{self.number()}", "name": "tool", "arguments": "{}"}
            for _ in range(1 + number % 2)
        ]
        stretch = None if self.session is None else self.session.stretch
        waiting = () if stretch is None else stretch.waiting
        results: list[JsonObject] = [
            {"type": "function_call_output", "call_id": call_id, "output": ""} for call_id in waiting[: 1 + number % 2]
        ]
        record: JsonObject = items.step("name", number, item_id=self._item_id("it"))
        batches = [
            [asked],
            [asked, told],
            calls,
            results,
            [told],
            [record],
            [*results, *calls],
            results,
            [asked, *calls],
        ]
        self.brought(*batches[number % len(batches)])

    def _pop(self, number: int) -> None:
        if number > 3:
            self._hush()
        if self.session is None:
            return
        last = [(event.seq, found) for event in self.events if (found := said(self.session, event))][-1:]
        if last and last[0][0] > self.session.through:
            self.brought(*last[0][1][:-1], after=last[0][0] - 1)

    def _clear(self, number: int) -> None:
        if number < 3 and self.session is not None:
            self.brought(after=0)

    def _step(self, number: int) -> None:
        make = (items.step, items.custom)[number % 2]
        self.append(ItemDone(make("name", number, item_id=self._item_id("it")), step=f"step#{self.count}"))


def played(program: Sequence[tuple[str, int]]) -> Walk:
    """The walk that a program describes."""
    return Walk().play(list(program))
