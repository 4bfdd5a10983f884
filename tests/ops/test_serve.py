"""`dalsegno serve` with one replica, as a process."""

import asyncio
import os
import signal
import time
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from dalsegno.client import ApiError, Client, Retry
from tests.ops.processes import READY, run, serving
from tests.support import wait_until

THREADS = """
import asyncio, threading

ALL = threading.Barrier(40, timeout=20)

async def answer(turn):
    await asyncio.to_thread(ALL.wait)
    await turn.say("all are here")
"""


async def test_it_says_one_line_when_it_can_serve(tmp_path: Path):
    """`ready http://HOST:PORT replica=<id> pid=<pid>` on stdout, nothing else; where the store is on stderr."""
    async with serving("agent.py:answer", cwd=tmp_path) as server:
        assert [READY.fullmatch(line) is not None for line in server.lines] == [True]
        assert server.ready[0].replica == "r1" and server.ready[0].pid == server.process.pid
        async with Client(server.url) as client:
            assert await (await client.sessions.create()).ask("hi") == f"hello from {server.process.pid}"
        assert (tmp_path / ".dalsegno" / "sessions.db").is_file()
        assert any(str(tmp_path / ".dalsegno") in line for line in server.errors)
        assert await server.end() == 0
    assert len(server.lines) == 1


async def test_a_thread_that_waits_keeps_no_other_turn_from_one(tmp_path: Path):
    """Functions of agents that are not async run in threads: as many at once as there are turns. Names of hosts are
    found in such a thread, too.
    """
    (tmp_path / "threads.py").write_text(THREADS)
    async with serving("threads.py:answer", cwd=tmp_path) as server, Client(server.url) as client:
        sessions = [await client.sessions.create() for _ in range(40)]
        assert await asyncio.gather(*(session.ask("hi") for session in sessions)) == ["all are here"] * 40


async def test_sigterm_hands_the_turn_over_at_a_step_and_ends_with_0(tmp_path: Path):
    """Within the time of a step; its stream is aborted, and the next process goes on where it was."""
    async with serving("agent.py:answer", cwd=tmp_path) as server:
        client = Client(server.url, retry=Retry(rounds=1))
        async with client:
            session = await client.sessions.create()
            receipt = await session.send("slow")
            began = asyncio.Event()

            async def follow() -> None:
                async with aclosing(session.stream(after=0)) as events:
                    async for event in events:
                        if event.type == "item.delta":
                            began.set()

            reader = asyncio.create_task(follow())
            await began.wait()
            started = time.monotonic()
            assert await server.end() == 0
            assert time.monotonic() - started < 3
            with pytest.raises(Exception):  # noqa: B017 -- whatever an aborted stream and a dead port raise
                await reader
    async with serving("agent.py:answer", cwd=tmp_path) as server, Client(server.url) as client:
        turn = await client.session(session.id).turn(receipt.turn, wait=timedelta(seconds=20))
        assert (turn["status"], len(turn["output"])) == ("completed", 8)
        assert turn["attempt"] == 1, "it was handed over, not left behind as by a crash"


async def test_a_second_signal_ends_it_at_once(tmp_path: Path):
    """A person who presses Ctrl-C twice means it."""
    async with serving("agent.py:answer", cwd=tmp_path) as server, Client(server.url) as client:
        await (await client.sessions.create()).send("slow")
        server.process.send_signal(signal.SIGINT)
        await wait_until(
            lambda: any("draining" in line for line in server.errors), description="it has heard the first signal"
        )
        assert await server.end(signal.SIGINT) in (0, 1)


async def test_keys_make_tenants(tmp_path: Path):
    """With keys nobody comes in without one, and each key sees its own tenant; the log never shows one."""
    keys = {"DALSEGNO_API_KEYS": "alpha-secret:acme,beta-secret:other"}
    async with serving("agent.py:answer", "--host", "0.0.0.0", cwd=tmp_path, variables=keys) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        async with Client(url, api_key="alpha-secret") as one, Client(url, api_key="beta-secret") as two:
            session = await one.sessions.create()
            with pytest.raises(ApiError, match="404"):
                await two.session(session.id).get()
        async with Client(url) as nobody:
            with pytest.raises(ApiError, match="401"):
                await nobody.sessions.create()
        assert await server.end() == 0
    assert "secret" not in "\n".join(server.lines + server.errors)


async def test_metrics_count_turns_and_commits(tmp_path: Path):
    """`/metrics` has the runtime's figures beside HTTP's."""
    async with serving("agent.py:answer", cwd=tmp_path) as server:
        async with Client(server.url) as client:
            await (await client.sessions.create()).ask("hi")
        async with httpx2.AsyncClient() as http:
            text = (await http.get(f"{server.url}/metrics")).text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert figures['dalsegno_turns_started_total{kind="first",replica="r1"}'] == "1.0"
    assert figures['dalsegno_turns_ended_total{replica="r1",status="completed"}'] == "1.0"
    assert float(figures['dalsegno_commit_seconds_count{outcome="write",replica="r1"}']) >= 3
    assert figures['dalsegno_turns_running{replica="r1"}'] == "0.0"
    assert "dalsegno_http_requests_total" in text and 'dalsegno_replica{replica="r1",version=' in text
    assert all('replica="r1"' in name for name in figures), "whoever scrapes a shared port must not mix up counters"


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_json_logs_are_json_and_say_whose_turn_it_was(tmp_path: Path, level: str):
    """One object a line, with session and turn where there is one. What a user's code raises has a place in the log,
    and its words, which may hold a secret, only where an operator asks for them.
    """
    import json

    (tmp_path / "failing.py").write_text("async def answer(turn):\n    raise RuntimeError('key=hunter2')\n")
    options = ("--log-format", "json", "--log-level", level)
    async with serving("failing.py:answer", *options, cwd=tmp_path) as server:
        async with Client(server.url) as client:
            session = await client.sessions.create()
            receipt = await session.send("hi")
            assert (await session.turn(receipt.turn, wait=timedelta(seconds=10)))["status"] == "failed"
        await server.end()
    lines = [json.loads(line) for line in server.errors]
    (failure,) = [line for line in lines if " failed: " in line["message"]]
    assert (failure["session"], failure["turn"], failure["level"]) == (session.id, receipt.turn, "warning")
    assert "RuntimeError at" in failure["message"] and "failing.py:2 in answer" in failure["message"]
    assert any("hunter2" in line for line in server.errors) == (level == "debug")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere.py:answer"], 2, "there is no file nowhere.py"),
        (["agent.py:plain"], 2, "write `async def plain(turn)`"),
        (["agent.py:answer", "--host", "0.0.0.0"], 2, "--insecure"),
        (["agent.py:answer", "--lease-ttl", "5"], 2, "write 5s"),
        (["agent.py:answer", "--warm", "nosql://x"], 2, "nosql"),
        (["agent.py:answer", "--warm", "sqlite:////proc/nowhere/x.db"], 2, "/proc/nowhere"),
        (["agent.py:answer", "--nonsense"], 2, "--nonsense"),
        (["agent.py:answer", "--replicas", "2", "--warm", "memory:"], 2, "one process"),
        ([], 2, "TARGET"),
    ],
)
async def test_what_cannot_start_says_so_in_one_line(tmp_path: Path, arguments: list[str], code: int, says: str):
    """With exit code 2 for what the operator gave, on stderr, without a traceback."""
    (tmp_path / "agent.py").write_text("async def answer(turn): ...\ndef plain(turn): ...\n")
    done = await run("serve", "--port", "0", *arguments, cwd=tmp_path)
    assert (done.code, done.out) == (code, "")
    assert says in done.err and "Traceback" not in done.err


async def test_a_taken_port_is_exit_code_1(tmp_path: Path):
    """For one replica and for a fleet, which must not mix with another one on the same port."""
    async with serving("agent.py:answer", cwd=tmp_path) as server:
        port = server.url.rpartition(":")[2]
        for replicas in ("1", "2"):
            done = await run("serve", "agent.py:answer", "--port", port, "--replicas", replicas, cwd=tmp_path)
            assert done.code == 1 and f"127.0.0.1:{port}" in done.err and "Traceback" not in done.err


async def test_an_agent_that_fails_on_import_shows_where(tmp_path: Path):
    """The last place and the words; the whole traceback with --debug."""
    (tmp_path / "agent.py").write_text("x = 1\nraise RuntimeError('not today')\n")
    for replicas in ("1", "2"):
        done = await run("serve", "agent.py:answer", "--port", "0", "--replicas", replicas, cwd=tmp_path)
        assert done.code == 1 and "agent.py:2: RuntimeError: not today" in done.err
        assert "Traceback" not in done.err
    done = await run("--debug", "serve", "agent.py:answer", "--port", "0", cwd=tmp_path)
    assert done.code == 1 and "Traceback" in done.err


async def test_unknown_variables_are_usage_errors(tmp_path: Path):
    """Wherever the command would have read them."""
    for words in (["serve", "agent.py:answer"], ["doctor"], ["migrate"], ["sessions", "list"], ["demo"]):
        done = await run(*words, cwd=tmp_path, variables={"DALSEGNO_WRM": "sqlite:///x.db"})
        assert done.code == 2 and "did you mean DALSEGNO_WARM?" in done.err
    assert not os.listdir(tmp_path)
