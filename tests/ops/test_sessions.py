"""`dalsegno sessions …` as a process: against a server, and against a warm tier directly."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dalsegno.client import Client
from dalsegno.ops.screen import OBEYED, says
from tests.ops.processes import command, environment, run, serving

WARM = "sqlite:///.dalsegno/sessions.db"


@asynccontextmanager
async def said(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """A server at which somebody has said something; its URL and the session."""
    async with serving("agent.py:answer", cwd=folder) as server, Client(server.url) as client:
        session = await client.sessions.create(user="ada", metadata={"case": "[bold]7[/bold]"})
        await session.ask("hi [red]there")
        yield server.url, session.id


@pytest.mark.parametrize("way", ["server", "warm"])
async def test_all_verbs_reach_a_server_and_a_warm_tier_alike(tmp_path: Path, way: str):
    """list, show, events, export, import, fork and delete, with the same words for both."""
    async with said(tmp_path) as (url, session):
        place = {
            "server": ["--url", url],
            "warm": ["--warm", WARM],
        }[way]

        async def sessions(*words: str, stdin: bytes = b"") -> str:
            done = await run("sessions", *words, *place, cwd=tmp_path, stdin=stdin)
            assert (done.code, done.err) == (0, "")
            return done.out

        (found,) = map(json.loads, (await sessions("list", "--json")).splitlines())
        assert (found["id"], found["user"], found["status"]) == (session, "ada", "idle")
        assert session in await sessions("list")
        tree = await sessions("show", session)
        assert "turn 2 completed" in tree and "hi [red]there" in tree and "hello from" in tree
        shown = json.loads(await sessions("show", session, "--json"))
        assert [event["seq"] for event in shown["events"]] == list(range(1, shown["head"] + 1))
        events = [
            json.loads(line) for line in (await sessions("events", session, "--after", "3", "--json")).splitlines()
        ]
        assert events == shown["events"][3:]
        assert "turn.completed" in await sessions("events", session)
        export = await sessions("export", session)
        assert [json.loads(line) for line in export.splitlines()] == shown["events"]
        copy = (await sessions("import", "-", stdin=export.encode())).strip()
        cut = "".join(export.splitlines(keepends=True)[:-1])
        refused = await run("sessions", "import", "-", *place, cwd=tmp_path, stdin=cut.encode())
        assert refused.code == 1 and "is not the export's last: it was cut off" in refused.err
        fork = (await sessions("fork", session, "--at", "1")).strip()
        assert json.loads(await sessions("show", copy, "--json"))["head"] == shown["head"]
        assert json.loads(await sessions("show", fork, "--json"))["parent"] == {"session": session, "seq": 1}
        assert await sessions("delete", fork) == f"deleted {fork}\n"
        left = [json.loads(line)["id"] for line in (await sessions("list", "--json")).splitlines()]
        assert sorted(left) == sorted([session, copy])


async def test_the_place_may_be_said_in_many_ways(tmp_path: Path):
    """Before or after the command, by option or variable, a warm tier as --url; what is asked for wins."""
    async with said(tmp_path) as (url, session):
        nowhere = {"DALSEGNO_URL": "http://127.0.0.1:1"}
        for words, variables in (
            (["list"], {"DALSEGNO_URL": url}),
            (["--url", WARM, "list"], nowhere),
            (["list", "--warm", WARM], nowhere),
            (["--url", "http://127.0.0.1:1", "list", "--url", url], {}),
            (["list"], {"DALSEGNO_WARM": WARM}),
        ):
            done = await run("sessions", *words, cwd=tmp_path, variables=variables)
            assert done.code == 0 and session in done.out, (words, done)


async def test_what_people_write_is_shown_and_not_obeyed(tmp_path: Path):
    """Escape sequences, changes of direction, titles of windows: an operator's terminal carries out none of them."""
    async with serving("agent.py:answer", cwd=tmp_path) as server, Client(server.url) as client:
        session = await client.sessions.create(user="ada\u202e", metadata={"case": "\u009b2J"})
        await session.ask("\x1b]0;owned\x07 \x1b[31mred\u2066 line\nbreak 漢字 👩\u200d🚀 [bold]:smile:")
        assert not OBEYED.search((await run("sessions", "list", "--url", server.url, cwd=tmp_path)).out)
        for verb in ("show", "events"):
            done = await run("sessions", verb, session.id, "--url", server.url, cwd=tmp_path)
            assert done.code == 0 and not OBEYED.search(done.out)
            assert r"\x1b]0;owned\x07 \x1b[31mred\u2066 line break 漢字 👩" in done.out
            assert "👩\u200d🚀 [bold]:smile:" in done.out


async def test_an_id_is_whole_on_every_screen(tmp_path: Path):
    """It is there to be copied. On a narrow one other columns give way."""
    async with said(tmp_path) as (_, session):
        for variables in ({"FORCE_COLOR": "1", "COLUMNS": "80"}, {"COLUMNS": "40"}):
            done = await run("sessions", "list", "--warm", WARM, cwd=tmp_path, variables=variables)
            assert session in done.out and ("\x1b" in done.out) == ("FORCE_COLOR" in variables)


async def test_a_screen_without_unicode_shows_what_it_can(tmp_path: Path):
    """And the rest by number."""
    async with serving("agent.py:answer", cwd=tmp_path) as server, Client(server.url) as client:
        session = await client.sessions.create()
        await session.ask("漢")
        ascii_only = {"PYTHONIOENCODING": "ascii"}
        done = await run("sessions", "show", session.id, "--url", server.url, cwd=tmp_path, variables=ascii_only)
    assert (done.code, done.err) == (0, "") and r"\u6f22" in done.out


async def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path):
    """`dalsegno sessions list --json | head -1`: not a word."""
    async with said(tmp_path):
        for words in (["list"], ["list", "--json"]):
            process = await asyncio.create_subprocess_exec(
                *command("sessions", *words, "--warm", WARM),
                cwd=tmp_path,
                env=environment(),
                stdout=(gone := closed_pipe()),
                stderr=asyncio.subprocess.PIPE,
            )
            os.close(gone)
            assert (await process.communicate())[1] == b""


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 1, 1), (b"y\n", 0, 0)])
async def test_a_person_is_asked_before_a_session_is_deleted(tmp_path: Path, answer: bytes, code: int, left: int):
    """At a terminal; a program is not."""
    async with said(tmp_path) as (_, session):
        person, terminal = os.openpty()
        process = await asyncio.create_subprocess_exec(
            *command("sessions", "delete", session, "--warm", WARM),
            cwd=tmp_path,
            env=environment(),
            stdin=terminal,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        os.close(terminal)
        os.write(person, answer)
        await process.communicate()
        os.close(person)
        assert process.returncode == code
        listed = await run("sessions", "list", "--json", "--warm", WARM, cwd=tmp_path)
        assert len(listed.out.splitlines()) == left


def closed_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["list", "--url", "http://127.0.0.1:1"], 1, "no server answers at http://127.0.0.1:1: start one"),
        (["show", "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b", "--warm", WARM], 1, "no such session"),
        (["show", "nonsense", "--warm", WARM], 1, "a session id is a UUID"),
        (["import", "nowhere.ndjson", "--warm", WARM], 2, "nowhere.ndjson"),
        (["import", "-", "--warm", WARM], 1, "at least one line"),
        (["fork", "x", "--at", "0"], 2, "--at"),
        (["events"], 2, "SESSION"),
        (["list", "--warm", "nosql://me:secret@x"], 2, "nosql"),
        (["list", "--warm", "sqlite:///nowhere.db"], 1, "there is no file nowhere.db: `dalsegno migrate"),
        (["list", "--warm", "sqlite:///."], 2, "names no file"),
        (["--warm", WARM, "list", "--url", "http://127.0.0.1:1"], 2, "--url and --warm name two places"),
        (["list", "--warm", "memory:"], 2, "ask the server, with --url"),
        (["list", "--url", "me:secret@localhost:8000"], 2, "write for example http://127.0.0.1:8000"),
        (["list", "--url", "http://"], 2, "names no server"),
        (["list", "--url", "http://me:secret@localhost:99999"], 2, "names no server"),
        (["list", "--api-key", "schlüssel-secret"], 2, "--api-key: the value will not do"),
        (["list", "--warm", WARM, "--tenant", ""], 2, "--tenant"),
        (["archive", "--url", "http://127.0.0.1:1"], 2, "name its stores with --warm"),
        (["archive", "--warm", WARM, "--idle", "30"], 2, "'30' has no unit"),
        (["nonsense"], 2, "nonsense"),
    ],
)
async def test_what_cannot_be_done_is_one_line(tmp_path: Path, words: list[str], code: int, says: str):
    """Exit code 1 if it failed, 2 if it was asked wrongly; no traceback, no password; and nothing new on the disk."""
    await run("migrate", "--warm", WARM, cwd=tmp_path)
    done = await run("sessions", *words, cwd=tmp_path)
    assert done.code == code and says in done.err
    assert "Traceback" not in done.err and "secret" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == [".dalsegno"]


async def test_an_export_that_fails_leaves_the_old_file(tmp_path: Path):
    """A backup is replaced by a whole one or not at all. And nobody is told that what lies ahead is empty."""
    await run("migrate", "--warm", WARM, cwd=tmp_path)
    opening = {"seq": 1, "type": "session.created", "turn": None, "at": "2026-11-20T08:00:00.000Z", "data": {}}
    (tmp_path / "old.ndjson").write_text(json.dumps(opening) + "\n")
    session = (await run("sessions", "import", "old.ndjson", "--warm", WARM, cwd=tmp_path)).out.strip()
    ahead = await run("sessions", "events", session, "--after", "2", "--warm", WARM, cwd=tmp_path)
    assert ahead.code == 1 and "cursor_ahead: the session's head is 1" in ahead.err
    unknown = "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b"
    assert (await run("sessions", "export", unknown, "-o", "old.ndjson", "--warm", WARM, cwd=tmp_path)).code == 1
    assert json.loads((tmp_path / "old.ndjson").read_text()) == opening


async def test_a_key_is_presented(tmp_path: Path):
    """From the option or the variable; without one, the error says how."""
    keys = {"DALSEGNO_API_KEYS": "k1:acme"}
    async with serving("agent.py:answer", cwd=tmp_path, variables=keys) as server:
        refused = await run("sessions", "list", "--url", server.url, cwd=tmp_path)
        assert refused.code == 1 and "--api-key or DALSEGNO_API_KEY" in refused.err
        for arguments, variables in ((["--api-key", "k1"], {}), ([], {"DALSEGNO_API_KEY": "k1"})):
            done = await run("sessions", "list", "--url", server.url, *arguments, cwd=tmp_path, variables=variables)
            assert (done.code, done.out.strip()) == (0, "no sessions")


async def test_a_warm_tier_is_read_for_one_tenant(tmp_path: Path):
    """`--tenant` says whose sessions; another's do not exist."""
    async with said(tmp_path) as (_, session):
        done = await run("sessions", "show", session, "--warm", WARM, "--tenant", "other", cwd=tmp_path)
        assert done.code == 1 and "no such session" in done.err


async def test_idle_sessions_are_archived_by_command(tmp_path: Path):
    """`archive` moves them while a fleet runs; each comes back when it is used, by the server or by a command."""
    async with serving("agent.py:answer", cwd=tmp_path) as server, Client(server.url) as client:
        session = await client.sessions.create()
        await session.ask("hi")
        log = await session.export()
        place = ["--warm", WARM]
        done = await run("sessions", "archive", *place, cwd=tmp_path)
        assert (done.code, done.out) == (0, "archived 0 of 1 sessions, removed 0 objects nobody wanted\n")
        for reads in (lambda: session.export(), lambda: _exported(session.id, tmp_path)):
            done = await run("sessions", "archive", "--idle", "0s", "--json", *place, cwd=tmp_path)
            assert (done.code, json.loads(done.out)["archived"]) == (0, 1)
            assert await reads() == log
        await session.ask("hi again")
        before, after = [list(map(json.loads, lines.splitlines())) for lines in (log, await session.export())]
        assert after[: len(before)] == before


def test_what_is_packed_is_not_drawn():
    """A graph's checkpoints are between the steps of a turn: their size is enough."""
    item = {"type": "dalsegno:event", "name": "langgraph.checkpoint", "data": {"v": 1, "packed": "KLUv" * 99}}
    assert says({"type": "item.done", "data": {"item": item}}) == "langgraph.checkpoint (396 characters, packed)"


async def _exported(session: str, folder: Path) -> bytes:
    return (await run("sessions", "export", session, "--warm", WARM, cwd=folder)).out.encode()
