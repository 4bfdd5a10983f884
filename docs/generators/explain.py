"""Blocks in the pages that explain: pictures of tables in `core`, and examples that the code itself composes."""

import typing
from collections.abc import Iterable, Iterator, Sequence

from dalsegno.core import codec, item
from dalsegno.core.cursor import Cursor
from dalsegno.core.effect import RECOVERY, Recovery, UnknownPolicy, recovery
from dalsegno.core.event import Data, Event, ItemDone, TurnCompleted, TurnCreated, TurnStarted
from dalsegno.core.generation import Diverged, Generation
from dalsegno.core.input import Message
from dalsegno.core.json import JsonObject, dumps
from dalsegno.core.ladder import LADDER
from dalsegno.core.stream import Composer, Dropped, Frame, Piece
from dalsegno.core.turn import TRANSITIONS
from generators.markdown import table

TURN, BASE, NEXT = 16, 17, 18
LONG = "Reykjavík is the capital of Iceland. " * 6 + "It has about 140,"
REST = "000 people."
OTHER = "The capital of Iceland is Reykjavík."

THEN: dict[Recovery, str] = {
    "again": "runs it again, with the same key",
    "probe": "asks its `probe`: `Happened` is recorded, `DidNotHappen` runs it, `None` tells the model so",
    "ask": "asks a human: “approve” runs it, “deny” tells the model that nobody knows, a tool result is recorded",
    "tell": "does not run it, and tells the model that nobody knows",
}
WORLD = {
    "read": "read at least once",
    "keyed": "changed once, if whoever is called honours the key; the call may arrive twice",
    "transactional": "changed exactly once: what died with the replica was not committed",
    "once, probe": "changed at most once, if what the probe says is true and stays true",
    "once, ask": "changed at most once, unless the human says “again” although it had happened, or is yet to",
    "once, tell": "changed at most once",
}


def turn_states() -> str:
    """The life of a turn, from the table that the code looks transitions up in."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> queued : turn.created"]
    for state, nexts in TRANSITIONS.items():
        by_next: dict[str, list[str]] = {}
        for kind, following in nexts.items():
            by_next.setdefault(following, []).append(kind)
        for following, kinds in by_next.items():
            lines.append(f"    {state} --> {following} : {', '.join(kinds)}")
    ends = sorted({following for nexts in TRANSITIONS.values() for following in nexts.values()} - set(TRANSITIONS))
    lines += [f"    {end} --> [*]" for end in ends] + ["```", ""]
    kinds = list(dict.fromkeys(kind for nexts in TRANSITIONS.values() for kind in nexts))
    rows = [(f"`{kind}`", *(TRANSITIONS[state].get(kind, "") for state in TRANSITIONS)) for kind in kinds]
    return "\n".join(lines) + "\n" + table(("event", *(f"while {state}" for state in TRANSITIONS)), rows)


def crash_table() -> str:
    """Effect class and policy → what a successor does with a call whose intent is on record and whose result is not."""
    rows = []
    for effect in RECOVERY:
        policies = typing.get_args(UnknownPolicy) if RECOVERY[effect] is None else ("",)
        for policy in policies:
            name = f"{effect}, {policy}" if policy else effect
            rows.append((f"`{name}`", THEN[recovery(effect, policy or "tell")], WORLD[name]))
    return table(("class", "the successor", "the world is"), rows)


# ------------------------------------------------------------------------------------------------ streams


def ladder_table() -> str:
    """Which rung a tier's failure leaves, from the table that `/readyz` looks it up in."""
    rows = []
    for (tier, state), rung in LADDER.items():
        if state != "ok":
            reads, accepts = ("yes" if one else "no" for one in (rung.reads, rung.accepts))
            rows.append((tier, state, reads, accepts, "200" if rung.ready else "503"))
    return table(("tier", "state", "reads and streams are served", "messages are accepted", "`/readyz`"), rows)


def cursor_example() -> str:
    """A reader at 17, an answer, and somebody else's message in the middle of it."""
    composer, generation = Composer(Cursor(BASE)), _generation()
    frames = [*_live(composer, _answer(generation, LONG))]
    frames += composer.durable(_event(NEXT, TurnCreated(Message("And Norway?")), turn=NEXT))
    frames += _live(composer, _said(generation, REST))
    frames += _done(composer, generation, NEXT + 1)
    return _shown(frames)


def takeover_carried() -> str:
    """The successor's model repeats what was shown, and goes on."""
    shown = _answer(_generation(), LONG)
    composer = Composer(Cursor(BASE))
    frames = [*_live(composer, shown)]
    generation = Generation(turn=TURN, base=BASE, carried=shown)
    frames += composer.durable(_event(NEXT, TurnStarted(attempt=2, epoch=6, carried=shown[-1].end)))
    frames += _live(composer, _answer(generation, LONG + REST))
    frames += _done(composer, generation, NEXT + 1)
    return _shown(frames)


def takeover_diverged() -> str:
    """The successor's model says something else."""
    shown = _answer(_generation(), LONG)
    composer, generation = Composer(Cursor(BASE)), Generation(turn=TURN, base=BASE, carried=shown)
    frames = [*_live(composer, shown)]
    frames += composer.durable(_event(NEXT, TurnStarted(attempt=2, epoch=6, carried=shown[-1].end)))
    generation.ask("model#1")
    generation.open(_opened("2"))
    diverged = generation.text(OTHER)
    assert isinstance(diverged, Diverged)
    frames += composer.durable(_event(NEXT + 1, ItemDone(diverged.items[0], streamed=True)))
    generation.restart(base=NEXT + 1)
    frames += _live(composer, generation.news())
    frames += _done(composer, generation, NEXT + 2)
    return _shown(frames)


def takeover_lost() -> str:
    """The hot tier is lost with the replica."""
    composer = Composer(Cursor(BASE))
    frames = [*_live(composer, _answer(_generation(), LONG))]
    frames += composer.durable(_event(NEXT, TurnStarted(attempt=2, epoch=6, carried=0)))
    generation = Generation(turn=TURN, base=NEXT)
    frames += _live(composer, _answer(generation, OTHER, number="2"))
    frames += _done(composer, generation, NEXT + 1)
    return _shown(frames)


def _generation() -> Generation:
    return Generation(turn=TURN, base=BASE)


def _opened(number: str) -> JsonObject:
    return item.opened(item.message("", item_id=f"msg_{number}"))


def _answer(generation: Generation, text: str, *, number: str = "1") -> Sequence[Piece]:
    assert generation.open(_opened(number)) is None
    return _said(generation, text)


def _said(generation: Generation, text: str) -> Sequence[Piece]:
    assert generation.text(text) is None
    return generation.news()


def _live(composer: Composer, pieces: Sequence[Piece]) -> Iterator[Frame]:
    yield from composer.live(pieces)


def _done(composer: Composer, generation: Generation, seq: int) -> Iterator[Frame]:
    made = generation.finish()
    assert not isinstance(made, Diverged)
    yield from composer.durable(_event(seq, ItemDone(made[0], step="model#1", streamed=True)))
    yield from composer.durable(_event(seq + 1, TurnCompleted(None)))


def _event(seq: int, data: Data, *, turn: int = TURN) -> Event:
    return Event(seq, codec.type_of(data), turn, 0, codec.encode(data))


def _shown(frames: Iterable[Frame]) -> str:
    rows = [(f"`{frame.cursor}`", *_words(frame.what)) for frame in frames]
    return table(("id", "event", "what it carries"), rows)


def _words(what: Event | Piece | Dropped) -> tuple[str, str]:
    if isinstance(what, Dropped):
        return "`item.dropped`", f"`{what.item_id}`, reason `{what.reason}`"
    if isinstance(what, Piece):
        if what.item is not None:
            return "`item.added`", f"`{what.item_id}`, empty"
        return "`item.delta`", f"`{what.item_id}` at {what.offset}: {len(what.delta)} code points, {_short(what.delta)}"
    data = codec.decode(what)
    if isinstance(data, ItemDone):
        text = item.text_of(data.item)
        return "`item.done`", f"`{data.item['id']}`, {data.item['status']}: all {len(text)} code points, {_short(text)}"
    if isinstance(data, TurnCreated):
        return "`turn.created`", f"another turn: “{data.input.content}”"
    shown = "" if isinstance(data, TurnCompleted) else f"`{dumps(data).decode()}`"
    return f"`{what.type}`", shown


def _short(text: str) -> str:
    return f"“{text}”" if len(text) <= 40 else f"“{text[:12]}…{text[-16:]}”"
