"""Tools: each recorded call is carried out as its effect class allows, once; models see its output when it is recorded.

The intent is in the log before anything here runs (law 4). What a crash between intent and output means is decided by
the table in `core.effect`; here it is done.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import assert_never

import msgspec

from dalsegno.core import item as items
from dalsegno.core import json
from dalsegno.core.append import Draft
from dalsegno.core.effect import DENIED, UNKNOWN, dedupe_digest, recovery
from dalsegno.core.event import Action, ItemDone, ToolIntent
from dalsegno.core.ids import effect_key, hash16, item_id
from dalsegno.core.input import ToolResult
from dalsegno.core.json import JsonObject, clean_text
from dalsegno.core.tool import as_tool
from dalsegno.errors import ConfigError, DalsegnoError
from dalsegno.ports import Call, DidNotHappen, Happened, Output, Tool, ToolFunction, Transactions
from dalsegno.runtime.near import Near
from dalsegno.runtime.outcome import Outcome, as_text, failed, finding_of, misunderstood, outcome_of, unknown
from dalsegno.runtime.parking import Parking
from dalsegno.runtime.patience import patiently, seen_through
from dalsegno.runtime.recall import Recall
from dalsegno.runtime.recorder import Recorder
from dalsegno.runtime.texts import Texts
from dalsegno.runtime.tiers import Tiers
from dalsegno.runtime.transact import Put, Transactor
from dalsegno.runtime.work import Calls, Work, side_by_side


class ToolBox:
    """The tools of one turn, and the only place that runs them."""

    def __init__(
        self, recorder: Recorder, *, tiers: Tiers, texts: Texts, transactions: Transactions | None, near: Near
    ) -> None:
        self._recorder = recorder
        self._closing = tiers.closing
        self._texts = texts
        self._recall = Recall(recorder, tiers=tiers, near=near)
        self._transactor = None if transactions is None else Transactor(recorder, tiers=tiers, store=transactions)
        self._tools: dict[str, Tool] = {}
        self._digests: dict[str, bytes] = {}
        self._made: dict[str, JsonObject] = {}
        """Outputs that are on their way to the log, by call."""
        self.under_way = Calls()
        self._turn = recorder.turn
        self.work = Work()
        self._parking = Parking(recorder, self.work)

    def offer(self, tools: Sequence[Tool | ToolFunction]) -> None:
        """Tools that calls of this turn may name. Raises `ConfigError` for one that this store cannot run."""
        for tool in map(as_tool, tools):
            if tool.effect == "transactional" and self._transactor is None:
                raise ConfigError(
                    f"tool {tool.name} is transactional, and the log's store has no transactions for tools: "
                    "keep the log in SQLite or PostgreSQL, or choose another effect class"
                )
            self._tools[tool.name] = tool

    def intent(self, call: JsonObject) -> ToolIntent:
        """What is recorded about a call in the commit that records the call itself."""
        name, call_id = str(call["name"]), str(call["call_id"])
        tool = self._tools.get(name)
        lease = self._recorder.lease
        key = effect_key(lease.tenant, lease.session, self._turn, call_id)
        if tool is None:
            return ToolIntent(call_id, name, "once", key)
        dedupe = None
        if tool.dedupe != "never":
            arguments = _parse(call)
            dedupe = None if isinstance(arguments, Outcome) else dedupe_digest(name, arguments)
        undo = tool.compensate is not None
        return ToolIntent(call_id, name, tool.effect, key, dedupe, undo=undo, gated=undo and tool.gate != "none")

    def named(self, name: str) -> Tool | None:
        """The tool of that name, if it has been offered."""
        return self._tools.get(name)

    def output(self, call_id: str) -> JsonObject | None:
        """What a call came to: on record, or on its way there."""
        return self._recorder.journal.outputs.get(call_id) or self._made.get(call_id)

    def call(self, call_id: str) -> Call:
        """A call on record, as its tool is given it."""
        arguments = _parse(self._recorder.journal.calls[call_id])
        return self._call(self._recorder.journal.calls[call_id], {} if isinstance(arguments, Outcome) else arguments)

    async def perform(self, calls: Sequence[JsonObject]) -> list[str]:
        """The outputs of these calls. Parks the turn when some of them wait for somebody, as soon as nothing else of it
        is under way.
        """
        ran = await side_by_side([self._one(call, self._carry_out) for call in calls])
        if actions := tuple(found for found in ran if isinstance(found, Action)):
            await self._parking.park(actions)
        return [found for found in ran if isinstance(found, str)]

    async def answer(self, call: JsonObject, output: Output) -> None:
        """Record what a call comes to for which no tool is run. What is on record stays as it is."""
        status = "completed" if output.status == "completed" else "incomplete"
        outcome = Outcome(output.text, status, output.details, idle=True)
        await self._one(call, partial(self._record, outcome=outcome))

    async def ask(self, call_id: str, question: str, *, within: timedelta | None) -> str:
        """The answer to a question of the agent; parks until there is one."""
        answer = self._recorder.journal.answers.get(call_id)
        if answer is None:
            await self._recorder.nothing_new()
            arguments = json.dumps({"question": question}).decode()
            await self._parking.park(
                (Action("tool_result", call_id, "ask", arguments, expires_at=self._expiry(within)),)
            )
        assert answer is not None
        said = answer[1]
        return (said.output or said.error or "") if isinstance(said, ToolResult) else (said.reason or said.decision)

    async def _one(self, call: JsonObject, work: Callable[[JsonObject], Awaitable[str | Action]]) -> str | Action:
        """The output of a call: the one on record, or what `work` makes of it, once, whoever asks meanwhile."""
        self._parking.check()
        journal, call_id = self._recorder.journal, str(call["call_id"])
        with self.under_way, self.work.under_way():
            async with self.under_way.of[call_id]:
                await self._recorder.be_sure()
                known = journal.outputs.get(call_id)
                if known is not None:
                    return str(known["output"])
                await self._recorder.nothing_new()
                if call_id not in journal.intents:
                    raise DalsegnoError(f"no model of this turn asked for the call {call_id!r}")
                return await work(call)

    async def _carry_out(self, call: JsonObject) -> str | Action:
        tool = self._tools.get(str(call["name"]))
        if tool is None:
            return await self._record(call, unknown(str(call["name"])))
        arguments = _parse(call)
        if isinstance(arguments, Outcome):
            return await self._record(call, arguments)
        outcome = await self._gated(tool, call, arguments)
        return outcome if isinstance(outcome, Action | str) else await self._record(call, outcome)

    async def _gated(self, tool: Tool, call: JsonObject, arguments: JsonObject) -> Outcome | Action | str:
        """Through the gate, past what earlier attempts left, to the tool itself."""
        journal, call_id = self._recorder.journal, str(call["call_id"])
        said = journal.answers[call_id][1] if call_id in journal.answers else None
        if isinstance(said, ToolResult):
            return Outcome(said.output) if said.output is not None else failed(said.error)
        if said is not None and said.decision == "deny":
            begun = journal.intents[call_id][0] < journal.adopted
            text = f"{UNKNOWN if begun else DENIED} {said.reason or ''}".strip()
            return Outcome(text, "incomplete", idle=not begun)
        if tool.gate != "none" and said is None:
            return self._action(tool, call)
        shared = await self._shared(call_id)
        if shared is not None:
            return shared
        begin = self._recover if journal.interrupted(call_id) else self._run
        return await begin(tool, call, arguments)

    async def _recover(self, tool: Tool, call: JsonObject, arguments: JsonObject) -> Outcome | Action | str:
        """A replica died after the intent was recorded: the class and the tool's policy say what may be done."""
        intent = self._recorder.journal.intents[str(call["call_id"])][1]
        way = recovery(intent.effect, tool.unknown)
        match way:
            case "again":
                return await self._run(tool, call, arguments)
            case "tell":
                return Outcome(UNKNOWN, "incomplete")
            case "ask":
                return self._action(tool, call, reason="unknown_outcome")
            case "probe":
                finding = await finding_of(tool, self._call(call, arguments))
                if isinstance(finding, Happened):
                    return Outcome(as_text(finding.result))
                if isinstance(finding, DidNotHappen):
                    return await self._run(tool, call, arguments)
                return Outcome(UNKNOWN, "incomplete")
            case _:
                assert_never(way)

    async def _run(self, tool: Tool, call: JsonObject, arguments: JsonObject) -> Outcome | str:
        effect = self._recorder.journal.intents[str(call["call_id"])][1].effect
        if effect == "transactional":
            return await self._run_in_transaction(tool, self._call(call, arguments))
        if effect == "read" and tool.cache_seconds is not None:
            return await self._recall.run_or_recall(tool, self._call(call, arguments), tool.cache_seconds)
        over = False

        async def carry_out() -> str:
            nonlocal over
            outcome = await outcome_of(tool, self._call(call, arguments))
            over = True
            return await self._write(str(call["call_id"]), outcome)

        # a cancelled turn stops at a safe point: an effect that has begun is seen through and recorded
        return await seen_through(carry_out(), unless=lambda: self._is_left() or (tool.effect == "read" and not over))

    def _is_left(self) -> bool:
        return self._recorder.lost or self._closing()

    async def _run_in_transaction(self, tool: Tool, call: Call) -> Outcome | str:
        if self._transactor is None:
            return misunderstood("this store offers no transactions to tools")
        made = await self._transactor.run(tool, call, self._draft)
        return str(self._recorder.journal.outputs[call.id]["output"]) if made is None else made

    async def undo_in_transaction(self, tool: Tool, call: Call, record: Callable[[Outcome], Draft]) -> Outcome | None:
        """What the compensation came to; None once it is on record, together with what it wrote."""
        if self._transactor is None:
            return misunderstood("this store offers no transactions to tools")
        return await self._transactor.undo(tool, call, record)

    async def _shared(self, call_id: str) -> str | None:
        """The output of an identical call that is on record, for tools that ask for it."""
        journal, intent = self._recorder.journal, self._recorder.journal.intents[call_id][1]
        if intent.dedupe is None:
            return None
        first = journal.shared.get(intent.dedupe, call_id)
        known = journal.outputs.get(first)
        call = journal.calls[call_id]
        if known is not None and first != call_id:
            return await self._record(call, _again(known))
        tool = self._tools[intent.name]
        if tool.dedupe != "session":
            return None
        self._digests[call_id], output = await self._recall.remembered(_digest(intent))
        return None if output is None else await self._record(call, Outcome(output, idle=True))

    async def _record(self, call: JsonObject, outcome: Outcome) -> str:
        """What was done goes on record, also when its caller is cancelled meanwhile: it may call again."""
        return await seen_through(self._write(str(call["call_id"]), outcome), unless=self._is_left)

    async def _write(self, call_id: str, outcome: Outcome) -> str:
        draft, put = self._draft(call_id, outcome)
        if put is not None:  # whoever was fenced off has it swept afterwards: it must not come later still
            await seen_through(patiently(put, closing=self._closing))
        assert isinstance(draft.data, ItemDone)
        made, recorded = items.innermost(draft.data.item), self._recorder.journal.outputs
        self._made = {one: item for one, item in self._made.items() if one not in recorded} | {call_id: made}
        await self._recorder.begin([draft])
        return str(made["output"])

    def _draft(self, call_id: str, outcome: Outcome) -> tuple[Draft, Put | None]:
        """The record of an output, and what has to be put into the cold tier before it may be written."""
        lease, journal = self._recorder.lease, self._recorder.journal
        name = item_id(self._turn, items.OUTPUT, "_".join(str(journal.calls[call_id]["id"]).split("_")[-2:]))
        item = items.output(call_id, clean_text(outcome.text), item_id=name, status=outcome.status)
        item, idle = items.detailed(item, outcome.details), outcome.idle
        if call_id in journal.inside:
            return Draft(ItemDone(items.inside(journal.inside[call_id], item), idle=idle), lease.turn), None
        put, spill = None, self._texts.spill(item, lease)
        if spill is not None:
            item, put = spill.kept, partial(self._texts.put, lease.tenant, spill)
        intent = journal.intents[call_id][1]
        remember = intent.dedupe is not None and outcome.status == "completed"
        return Draft(
            ItemDone(item, idle=idle), lease.turn, self._digests.get(call_id, _digest(intent)) if remember else None
        ), put

    def _action(self, tool: Tool, call: JsonObject, *, reason: str | None = None) -> Action:
        within = None if tool.answer_within_seconds is None else timedelta(seconds=tool.answer_within_seconds)
        return Action(
            "tool_result" if tool.gate == "outside" else "approval",
            str(call["call_id"]),
            str(call["name"]),
            str(call["arguments"]),
            reason,
            self._expiry(within),
        )

    def _expiry(self, within: timedelta | None) -> int | None:
        """On the store's clock, as far as this turn has seen it."""
        return None if within is None else self._recorder.session.updated_at + int(within.total_seconds() * 1000)

    def _call(self, call: JsonObject, arguments: JsonObject) -> Call:
        lease = self._recorder.lease
        intent = self._recorder.journal.intents[str(call["call_id"])][1]
        return Call(intent.call_id, intent.name, arguments, intent.key, lease.session, lease.tenant, self._turn)


def _again(known: JsonObject) -> Outcome:
    details = known.get("details")
    return Outcome(str(known["output"]), details=details if isinstance(details, dict) else {}, idle=True)


def _parse(call: JsonObject) -> JsonObject | Outcome:
    try:
        return msgspec.json.decode(str(call["arguments"]) or "{}", type=dict)
    except (msgspec.DecodeError, RecursionError) as error:
        return misunderstood(f"The arguments are not a JSON object: {error}")


def _digest(intent: ToolIntent) -> bytes:
    return hash16("call", intent.dedupe or "")
