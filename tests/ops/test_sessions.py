"""`dalsegno sessions …` as a process: against a server, and against a warm tier directly."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dalsegno.client import Client
from tests.ops.processes import run, serving

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
        (["nonsense"], 2, "nonsense"),
    ],
)
async def test_what_cannot_be_done_is_one_line(tmp_path: Path, words: list[str], code: int, says: str):
    """Exit code 1 if it failed, 2 if it was asked wrongly; no traceback, no password."""
    done = await run("sessions", *words, cwd=tmp_path)
    assert done.code == code and says in done.err
    assert "Traceback" not in done.err and "secret" not in done.err


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
