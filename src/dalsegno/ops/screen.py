"""Sessions for people: tables and trees from the contract's JSON. Colour only on a terminal; knows no store.

What users and models wrote is shown, and never obeyed: escape sequences and the like come out as their numbers.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text
from rich.tree import Tree

WORDS = 100
UNBOUNDED = 10_000
OBEYED = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal does not show but carries out: control characters but for white space, and changes of direction."""
COLOURS = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "waiting": "yellow",
    "running": "cyan",
    "idle": "green",
    "queued": "dim",
}


def show(what: RenderableType) -> None:
    """Print it. Where nobody looks, lines are as long as they need to be."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = UNBOUNDED
    console.print(what)


def session_table(sessions: Sequence[Any]) -> RenderableType:
    """One session a line."""
    if not sessions:
        return "no sessions"
    table = _table("session", "status", "head", "queued", folding=("agent", "user", "updated"))
    for session in map(visible, sessions):
        table.add_row(
            session["id"],
            Text(session["status"], style=COLOURS.get(session["status"], "")),
            str(session["head"]),
            str(session["queued"]),
            session["agent"],
            session["user"] or "–",
            session["updated_at"],
        )
    return table


def event_table(events: Sequence[Any]) -> RenderableType:
    """One event a line."""
    if not events:
        return "no events"
    table = _table("seq", "type", "turn", "at", folding=("says",))
    for event in map(visible, events):
        turn = str(_number(event["turn"])) if event["turn"] else "–"
        table.add_row(str(event["seq"]), event["type"], turn, event["at"], says(event))
    return table


def session_tree(session: Any, events: Sequence[Any]) -> RenderableType:
    """The session, its turns, and in each turn what happened, in order."""
    session, events = visible(session), visible(events)
    root = Tree(
        Text.assemble(
            ("session ", "bold"),
            session["id"],
            " ",
            (session["status"], COLOURS.get(session["status"], "")),
            (f"  agent {session['agent']}, head {session['head']}, {session['created_at']}", "dim"),
        )
    )
    turns: dict[str, Tree] = {}
    ends = {event["turn"]: event["type"].removeprefix("turn.") for event in events if event["type"] in ENDS}
    for event in events:
        if event["type"] == "turn.created":
            turns[event["turn"]] = root.add(_turn(event, ends.get(event["turn"], "open")))
        elif event["turn"] in turns:
            turns[event["turn"]].add(_line(event))
        elif event["type"] != "session.created":
            root.add(_line(event))
    return root


def finding_table(findings: Sequence[tuple[str, str, str]]) -> RenderableType:
    """What was examined, its state, and why."""
    table = _table("checked", "state", folding=("found",))
    for what, state, detail in findings:
        table.add_row(what, Text(state, style=STATES[state]), detail)
    return table


def tally_table(
    sessions: Mapping[str, int], events: int, size: int, seconds: float, *, verified: int
) -> RenderableType:
    """How many sessions became what, and what that was."""
    table = Table(Column("sessions", no_wrap=True), Column("", justify="right"), box=box.SIMPLE_HEAD)
    for what, words in OUTCOMES.items():
        if sessions.get(what):
            table.add_row(words, str(sessions[what]), style="bold red" if what == "failed" else "")
    table.add_row("read again and the same", str(verified))
    table.add_row("events", str(events))
    table.add_row("bytes", str(size))
    table.add_row("seconds", f"{seconds:.1f}")
    return table


OUTCOMES = {
    "moved": "moved",
    "there": "were there already",
    "buried": "deleted, and deleted there",
    "movable": "could be moved",
    "failed": "failed",
}
STATES = {"ok": "green", "degraded": "yellow", "wrong": "bold red"}
ENDS = ("turn.completed", "turn.failed", "turn.cancelled")


def visible(found: Any) -> Any:
    """The same JSON, without anything in it that a terminal would obey."""
    match found:
        case str():
            return OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), found)
        case dict():
            return {visible(name): visible(value) for name, value in found.items()}
        case list():
            return [visible(each) for each in found]
        case _:
            return found


def says(event: Any) -> str:
    """What an event says, in a line."""
    data = event["data"]
    match event["type"]:
        case "turn.created" | "turn.input":
            return _input(data["input"])
        case "item.done":
            return _item(data["item"])
        case "turn.started":
            carried = f", going on after {data['carried']} units" if data["carried"] else ""
            return f"attempt {data['attempt']}, epoch {data['epoch']}{carried}"
        case "tool.intent":
            return f"{data['name']} ({data['effect']}, key {data['key']})"
        case "turn.waiting":
            return "for " + ", ".join(f"{a['type']} of {a['name']} {a['call_id']}" for a in data["actions"])
        case "tool.undone":
            done = "undone" if data.get("status", "completed") == "completed" else "NOT undone"
            return f"{data['name']} {data['call_id']} is {done}"
        case "turn.failed":
            return f"{data['error']['code']}: {_short(data['error']['message'])}{_left(data)}"
        case "turn.cancelled":
            return f"by {data['by']}{_left(data)}"
        case "turn.completed":
            return "" if not data.get("usage") else _short(json.dumps(data["usage"]))
        case _:
            return _short(json.dumps(data, ensure_ascii=False)) if data else ""


def _left(end: Any) -> str:
    """Which effects a turn that did not complete has left."""
    calls = end.get("not_undone", ())
    return f"; NOT undone: {', '.join(calls)}" if calls else ""


def _table(*names: str, folding: Sequence[str]) -> Table:
    """A table whose first columns are always whole; on a narrow screen the last ones give way."""
    return Table(*(Column(name, no_wrap=True) for name in names), *folding, box=box.SIMPLE_HEAD)


def _number(turn: str) -> int:
    return int(turn[-8:], 16)


def _turn(created: Any, end: str) -> Text:
    style = COLOURS.get(end, "cyan")
    head, name = (f"turn {_number(created['turn'])} ", "bold"), (f"  {created['turn']}", "dim")
    return Text.assemble(head, (end, style), f"  “{says(created)}”", name)


def _line(event: Any) -> Text:
    name = event["type"].removeprefix("turn.").removeprefix("item.")
    if event["type"] == "item.done":
        name = event["data"]["item"]["type"].removeprefix("dalsegno:").replace("function_call", "call")
    style = COLOURS.get(name, "magenta" if name in ("call", "call_output", "tool.intent") else "blue")
    return Text.assemble((f"{event['seq']:>4} ", "dim"), (f"{name:<12} ", style), says(event))


def _input(said: Any) -> str:
    match said.get("type"):
        case "approval":
            return f"{said['decision']} {said['call_id']}"
        case "tool_result":
            return f"{said['call_id']}: {_short(said.get('output') or said.get('error') or '')}"
        case "cancel":
            return "cancel"
        case _:
            return _short(said.get("content") or " ".join(_texts(said.get("items") or ())))


def _item(item: Any) -> str:
    match item["type"]:
        case "function_call":
            return _short(f"{item['name']}({item['arguments']})")
        case "function_call_output":
            output = item.get("output", "")
            return _short(output if isinstance(output, str) else json.dumps(output))
        case "dalsegno:event" if isinstance(item.get("data"), dict) and "packed" in item["data"]:
            return f"{item['name']} ({len(item['data']['packed'])} characters, packed)"
        case "dalsegno:step" | "dalsegno:event":
            return _short(f"{item['name']} {json.dumps(item.get('output', item.get('data')), ensure_ascii=False)}")
        case "dalsegno:inside":
            return _short(f"in {item['call_id']}: {_item(item['item'])}")
        case _:
            unfinished = "" if item.get("status", "completed") == "completed" else f" [{item['status']}]"
            return _short("".join(_texts([item]))) + unfinished


def _texts(items: Iterable[Any]) -> list[str]:
    texts = []
    for item in items:
        content = item.get("content")
        parts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content or ()]
        texts.append("".join(parts))
    return texts


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WORDS else f"{line[: WORDS - 1]}…"
