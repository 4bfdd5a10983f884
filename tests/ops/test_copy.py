"""`dalsegno sessions copy` as a process: what it says, and how it ends."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dalsegno.client import Client
from dalsegno.ops.copying import name_of
from tests.ops.processes import Finished, run, serving

FROM, TO = "sqlite:///.dalsegno/sessions.db", "sqlite:///new.db"


async def _said(folder: Path, count: int) -> list[str]:
    """Sessions in which somebody has said something, in a store that nobody serves any more."""
    async with serving("agent.py:answer", cwd=folder) as server, Client(server.url) as client:
        sessions = [await client.sessions.create() for _ in range(count)]
        for session in sessions:
            await session.ask("hi")
    return [session.id for session in sessions]


async def _copy(folder: Path, *options: str, source: str = FROM, target: str = TO) -> Finished:
    return await run("sessions", "copy", "--from", source, "--to", target, *options, cwd=folder)


def _rows(done: Finished) -> dict[str, str]:
    """The table that it ends with."""
    lines = [line.rsplit(maxsplit=1) for line in done.out.splitlines()]
    return {words[0].strip(): words[1] for words in lines if len(words) == 2}


async def test_it_says_what_it_did(tmp_path: Path):
    """A dry run counts and moves nothing; then all are moved, then they are there; the other way they come back."""
    ids = await _said(tmp_path, 3)
    done = await _copy(tmp_path, "--dry-run")
    assert (done.code, done.err, _rows(done)["could be moved"]) == (0, "", "3")
    done = await _copy(tmp_path, "--concurrency", "2")
    rows = _rows(done)
    assert (done.code, done.err) == (0, "")
    assert (rows["moved"], rows["read again and the same"]) == ("3", "3") and int(rows["events"]) >= 12
    for warm, there in ((FROM, False), (TO, True)):
        listed = await run("sessions", "--warm", warm, "list", cwd=tmp_path)
        assert all((name in listed.out) == there for name in ids)
    done = await run("sessions", "--warm", FROM, "show", ids[0], cwd=tmp_path)
    assert done.code == 1 and "lives in another store" in done.err
    assert _rows(await _copy(tmp_path))["were there already"] == "3"
    assert _rows(await _copy(tmp_path, source=TO, target=FROM))["moved"] == "3"


async def test_what_cannot_be_moved_is_named_and_an_error(tmp_path: Path):
    """Exit code 1, a line with the session's name and why; the others are moved."""
    ids = await _said(tmp_path, 2)
    with closing(sqlite3.connect(tmp_path / ".dalsegno" / "sessions.db")) as raw, raw:
        raw.execute("UPDATE dalsegno_event SET body = x'7b7d' WHERE id = (1 << 32) + 2")
    done = await _copy(tmp_path)
    rows = _rows(done)
    assert (done.code, rows["moved"], rows["failed"]) == (1, "1", "1")
    assert done.err.count("\n") == 1 and "checksum" in done.err and any(name in done.err for name in ids)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--from", FROM), 2, "--to"),
        (("--from", "sqlite:///new.db", "--to", "sqlite:///./new.db"), 2, "the same store"),
        (("--from", "sqlite:///not-there.db", "--to", TO), 1, "there is no file"),
        (("--from", "http://127.0.0.1:1", "--to", TO), 2, "no warm tier"),
        (("--from", "memory:", "--to", TO), 2, "memory"),
        (("--from", FROM, "--to", "memory:"), 2, "memory"),
        (("--from", FROM, "--to", TO, "--patience", "soon"), 2, "duration"),
        (("--from", FROM, "--to", TO, "--concurrency", "0"), 2, "concurrency"),
    ],
)
async def test_what_makes_no_sense_is_said_in_a_line(tmp_path: Path, options: tuple[str, ...], code: int, says: str):
    """Exit code 2 for a command that cannot be meant, 1 for one that cannot be done; nothing is made."""
    done = await run("sessions", "copy", *options, cwd=tmp_path)
    assert done.code == code and says in done.err, done
    assert not (tmp_path / "not-there.db").exists()


def test_a_store_has_the_same_name_however_it_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Credentials, and a port or a path that goes without saying, are not in it; neither is the host in plain words."""
    monkeypatch.chdir(tmp_path)
    assert name_of("sqlite:///a/../x.db") == name_of(f"sqlite:///{tmp_path}/x.db") != name_of("sqlite:///y.db")
    name = name_of("postgresql://ann:secret@db.internal/agents")
    assert name == name_of("postgres://bob@db.internal:5432/agents?sslmode=require")
    assert name.startswith("postgresql-") and "internal" not in name and "secret" not in name
    assert name_of("postgresql://ann@db") == name_of("postgresql://bob@db/ann") != name_of("postgresql://bob@db")
    assert name != name_of("postgresql://ann@db.internal/other") != name_of("postgresql://ann@db2.internal/other")
    assert name_of("redis://h/0?namespace=a") == name_of("redis://h:6379/0?namespace=a") != name_of("redis://h/0")
    assert name_of("postgresql:///agents?host=/run/a") != name_of("postgresql:///agents?host=/run/b")
    assert name_of("redis+sentinel://a:1,b:2/service").startswith("redis+sentinel-")
