"""Tools: each recorded call is carried out as its effect class allows, once, and its output recorded before it is
shown.

The intent is in the log before anything here runs (law 4). What a crash between intent and output means is decided by
the table in `core.effect`; here it is done.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from functools import partial
from typing import assert_never

import msgspec

from dalsegno.core import codec, json
from dalsegno.core import item as items
from dalsegno.core.append import Decision, Draft, Fenced, Keep, Known, Refusal
from dalsegno.core.effect import DENIED, UNKNOWN, dedupe_digest, recovery
from dalsegno.core.event import Action, ItemDone, ToolIntent, TurnWaiting
from dalsegno.core.frozen import RESULT, seal, unseal
from dalsegno.core.ids import effect_key, hash16, item_id, short_hash
from dalsegno.core.input import ToolResult
from dalsegno.core.json import JsonObject, clean_text
from dalsegno.core.session import Session
from dalsegno.errors import Parked
from dalsegno.ports import Call, DidNotHappen, Happened, Ref, Tool, Transactions
from dalsegno.runtime.near import Near
from dalsegno.runtime.outcome import Outcome, as_text, failed, outcome_of
from dalsegno.runtime.patience import patiently, seen_through
from dalsegno.runtime.recorder import Recorder, Tiers
from dalsegno.runtime.texts import Texts
from dalsegno.runtime.transact import Put, Transactor


class ToolBox:
    """The tools of one turn, and the only place that runs them."""

    def __init__(
        self, recorder: Recorder, *, tiers: Tiers, texts: Texts, transactions: Transactions | None, near: Near
    ) -> None:
        self._recorder = recorder
        self._log = tiers.log
        self._closing = tiers.closing
        self._texts = texts
        self._near = near
        self._transactor = (
            None if transactions is None else Transactor(recorder, tiers=tiers, store=transactions, draft=self._draft)
        )
        self._tools: dict[str, Tool] = {}
        self._turn = recorder.turn

    def offer(self, tools: Sequence[Tool]) -> None:
        """Tools that calls of this turn may name."""
        self._tools.update((tool.name, tool) for tool in tools)

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
        return ToolIntent(call_id, name, tool.effect, key, dedupe)

    async def perform(self, calls: Sequence[JsonObject]) -> list[str]:
        """The outputs of these calls. Parks the turn when some of them wait for somebody."""
        ran = await _side_by_side([self._one(call) for call in calls])
        actions = tuple(found for found in ran if isinstance(found, Action))
        if actions:
            await self._park(actions)
        return [found for found in ran if isinstance(found, str)]

    async def ask(self, call_id: str, question: str, *, within: timedelta | None) -> str:
        """The answer to a question of the agent; parks until there is one."""
        answer = self._recorder.journal.answers.get(call_id)
        if answer is None:
            arguments = json.dumps({"question": question}).decode()
            await self._park((Action("tool_result", call_id, "ask", arguments, expires_at=self._expiry(within)),))
        assert answer is not None
        said = answer[1]
        return (said.output or said.error or "") if isinstance(said, ToolResult) else (said.reason or said.decision)

    async def _one(self, call: JsonObject) -> str | Action:
        journal = self._recorder.journal
        call_id = str(call["call_id"])
        known = journal.outputs.get(call_id)
        if known is not None:
            return str(known["output"])
        tool = self._tools.get(str(call["name"]))
        if tool is None:
            return await self._record(call, Outcome(f"There is no tool named {call['name']!r}.", "incomplete"))
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
            return Outcome(f"{UNKNOWN if begun else DENIED} {said.reason or ''}".strip(), "incomplete")
        if tool.gate != "none" and said is None:
            return self._action(tool, call)
        shared = await self._shared(call_id)
        if shared is not None:
            return shared
        if not journal.interrupted(call_id):
            return await self._run(tool, call, arguments)
        return await self._recover(tool, call, arguments)

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
                finding = None if tool.probe is None else await tool.probe(self._call(call, arguments))
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
            return await self._run_or_recall(tool, self._call(call, arguments), tool.cache_seconds)
        work = asyncio.ensure_future(outcome_of(tool, self._call(call, arguments)))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # a cancelled turn stops at a safe point: an effect that has begun is seen through and recorded
            if self._recorder.lost or tool.effect == "read":
                work.cancel()
                raise
            await self._record(call, await work)
            raise

    async def _run_or_recall(self, tool: Tool, call: Call, seconds: float) -> Outcome:
        """What an identical call came to a short while ago, in whatever session of the tenant; or the tool is run."""
        names = (RESULT, call.tenant, self._recorder.session.agent, dedupe_digest(tool.name, call.arguments))
        ref = Ref(call.tenant, f"tool_{short_hash(*names)}")
        kept = await self._near.get(ref, RESULT)
        known = None if kept is None else unseal(kept[1], *names)
        if known is not None:
            return Outcome(known.decode())
        made = await outcome_of(tool, call)
        if made.status == "completed":
            content = seal(clean_text(made.text).encode(), *names)
            self._near.put(ref, RESULT, 0, content, keep=timedelta(seconds=seconds))
        return made

    async def _run_in_transaction(self, tool: Tool, call: Call) -> Outcome | str:
        if self._transactor is None:
            return failed("this store offers no transactions to tools")
        made = await self._transactor.run(tool, call)
        return str(self._recorder.journal.outputs[call.id]["output"]) if made is None else made

    async def _shared(self, call_id: str) -> str | None:
        """The output of an identical call that is on record, for tools that ask for it."""
        journal, intent = self._recorder.journal, self._recorder.journal.intents[call_id][1]
        if intent.dedupe is None:
            return None
        first = journal.shared.get(intent.dedupe, call_id)
        known = journal.outputs.get(first)
        call = journal.calls[call_id]
        if known is not None and first != call_id:
            return await self._record(call, Outcome(str(known["output"])))
        tool = self._tools[intent.name]
        if tool.dedupe != "session":
            return None
        output = await patiently(partial(self._remembered, _digest(intent)), closing=self._closing)
        return None if output is None else await self._record(call, Outcome(output))

    async def _remembered(self, digest: bytes) -> str | None:
        decision = await self._log.commit(self._recorder.ref, _look_up, digest=digest)
        found = None if isinstance(decision, Refusal | Fenced) else decision.result
        if found is None:
            return None
        events = await self._log.read(self._recorder.ref, after=found.seq - 1, limit=1)
        data = codec.decode(events[0])
        return str(data.item["output"]) if isinstance(data, ItemDone) else None

    async def _record(self, call: JsonObject, outcome: Outcome) -> str:
        call_id = str(call["call_id"])
        draft, put = self._draft(call_id, outcome)
        if put is not None:
            await seen_through(patiently(put, closing=self._closing))
        await self._recorder.append([draft])
        return str(self._recorder.journal.outputs[call_id]["output"])

    def _draft(self, call_id: str, outcome: Outcome) -> tuple[Draft, Put | None]:
        """The record of an output, and what has to be put into the cold tier before it may be written."""
        lease, journal = self._recorder.lease, self._recorder.journal
        name = item_id(self._turn, items.OUTPUT, "_".join(str(journal.calls[call_id]["id"]).split("_")[-2:]))
        item = items.output(call_id, clean_text(outcome.text), item_id=name, status=outcome.status)
        put, spill = None, self._texts.spill(item, lease)
        if spill is not None:
            item, put = spill.kept, partial(self._texts.put, lease.tenant, spill)
        intent = journal.intents[call_id][1]
        remember = intent.dedupe is not None and outcome.status == "completed"
        return Draft(ItemDone(item), lease.turn, _digest(intent) if remember else None), put

    async def _park(self, actions: tuple[Action, ...]) -> None:
        waiting = Draft(TurnWaiting(actions), self._recorder.lease.turn)
        await self._recorder.append([waiting], then="release")
        raise Parked

    def _action(self, tool: Tool, call: JsonObject, *, reason: str | None = None) -> Action:
        within = None if tool.answer_within_seconds is None else timedelta(seconds=tool.answer_within_seconds)
        kind = "tool_result" if tool.gate == "outside" else "approval"
        return Action(
            "tool_result" if kind == "tool_result" else "approval",
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


def _parse(call: JsonObject) -> JsonObject | Outcome:
    try:
        return msgspec.json.decode(str(call["arguments"]) or "{}", type=dict)
    except (msgspec.DecodeError, RecursionError) as error:
        return failed(f"The arguments are not a JSON object: {error}")


def _digest(intent: ToolIntent) -> bytes:
    return hash16("call", intent.dedupe or "")


def _look_up(session: Session | None, known: Known | None, now: int) -> Decision[Known | None]:
    return Keep(known)


async def _side_by_side(work: Sequence[Coroutine[object, object, str | Action]]) -> list[str | Action]:
    """All of them at once; the first that fails ends the others. One alone needs no task."""
    if len(work) == 1:
        return [await work[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
