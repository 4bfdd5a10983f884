"""`--replicas N`: a fleet on one port, hurt in every way that a process can be."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx2
import pytest

from dalsegno.client import Client
from dalsegno.ops.config import Config
from dalsegno.ops.place import Place
from dalsegno.ops.supervisor import replicas
from tests.ops.processes import (
    FORKING,
    Running,
    alive,
    command,
    ended,
    environment,
    free_ports,
    kill,
    run,
    serving,
    workers,
)
from tests.support import wait_until


async def speakers(server: Running, *, wanted: int) -> set[int]:
    """Ask, each time over a new connection, until so many processes have answered."""
    found: set[int] = set()

    async def ask() -> bool:
        async with Client(server.url) as client:
            found.add(int((await (await client.sessions.create()).ask("hi")).rpartition(" ")[2]))
        return len(found) >= wanted

    await wait_until(ask, description=f"{wanted} processes have answered", timeout=20)
    return found


async def test_replicas_share_one_port(tmp_path: Path):
    """Each says that it is ready, all on the same URL, and all of them answer."""
    async with serving("agent.py:answer", cwd=tmp_path, replicas=3) as server:
        assert sorted(server.pids) == ["r1", "r2", "r3"]
        assert len({ready.url for ready in server.ready}) == 1
        assert server.process.pid not in server.pids.values()
        assert await speakers(server, wanted=3) == set(server.pids.values())
        assert await server.end() == 0
        assert not any(alive(pid) for pid in server.pids.values())


async def test_a_killed_replica_is_started_again_under_its_name(tmp_path: Path):
    """As a new process; the others serve meanwhile."""
    async with serving("agent.py:answer", cwd=tmp_path, replicas=2) as server:
        before = server.pids
        for round_ in range(2):
            kill(server.pids["r2"])
            await speakers(server, wanted=1)
            await server.until_ready(3 + round_)
        assert server.pids["r1"] == before["r1"] and server.pids["r2"] != before["r2"]
        assert any("r2" in line and "SIGKILL" in line for line in server.errors)
        assert await server.end() == 0
        assert any("r1 dalsegno.serve: SIGTERM" in line for line in server.errors), "a line says whose it is"


async def test_a_replica_is_started_again_though_a_worker_of_its_outlives_it(tmp_path: Path):
    """What a process forked holds open what it inherited, for as long as it likes: the process is gone all the same."""
    (tmp_path / "forking.py").write_text(FORKING)
    with workers(tmp_path / "workers") as variables:
        async with serving("forking.py:answer", cwd=tmp_path, replicas=2, variables=variables) as server:
            kill(server.pids["r2"])
            await server.until_ready(3)
            for worker in (tmp_path / "workers").iterdir():
                assert alive(int(worker.name))
                kill(int(worker.name))  # or the end of what the fleet says would not come before its own
            assert await server.end() == 0


async def test_sighup_restarts_one_after_another(tmp_path: Path):
    """Every process is replaced, and there is always somebody who answers."""
    async with serving("agent.py:answer", cwd=tmp_path, replicas=2) as server:
        before = server.pids
        server.process.send_signal(signal.SIGHUP)
        while len(server.ready) < 4:
            await speakers(server, wanted=1)
        assert not {*before.values()} & {*server.pids.values()}
        assert [ready.replica for ready in server.ready[2:]] == ["r1", "r2"]
        assert not any("WARNING" in line for line in server.errors), "what was asked for is no reason to worry"
        assert not any(alive(pid) for pid in before.values())
        assert await server.end() == 0


async def test_replicas_do_not_outlive_their_supervisor(tmp_path: Path):
    """Also when it is killed and can tell nobody."""
    async with serving("agent.py:answer", cwd=tmp_path, replicas=2) as server:
        pids = server.pids.values()
        server.process.kill()
        await wait_until(lambda: not any(map(alive, pids)), description="the replicas have noticed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_turn_under_way_is_handed_over(tmp_path: Path, number: signal.Signals):
    """All leave within the time of a step, with exit code 0, and the next fleet finishes the turn."""
    async with serving("agent.py:answer", cwd=tmp_path, replicas=2) as server:
        async with Client(server.url) as client:
            session = await client.sessions.create()
            await session.send("slow")
        assert await server.end(number) == 0
    async with serving("agent.py:answer", cwd=tmp_path, replicas=2) as server, Client(server.url) as client:

        async def done() -> bool:
            return bool((await client.session(session.id).get())["status"] == "idle")

        await wait_until(done, description="the turn was finished", timeout=20)
        assert await server.end() == 0


async def test_a_replica_that_hangs_is_killed_when_its_time_is_over(tmp_path: Path):
    """An agent that blocks the loop cannot keep the fleet from leaving; what was cut off shows in the exit code."""
    async with serving("agent.py:stuck", "--drain-timeout", "0s", cwd=tmp_path, replicas=2) as server:
        async with Client(server.url) as client:
            await (await client.sessions.create()).send("hi")
        await wait_until(lambda: "stuck" in server.lines, description="the agent blocks its loop")
        assert await server.end() == 1
        assert not any(alive(pid) for pid in server.pids.values())


@pytest.mark.parametrize(
    ("target", "code", "says"), [("nowhere.py:x", 2, "no file nowhere.py"), ("agent.py:plain", 2, "not async")]
)
async def test_what_is_wrong_is_said_once(tmp_path: Path, target: str, code: int, says: str):
    """The first replica proves that the fleet can start; if not, its reason is the fleet's."""
    (tmp_path / "agent.py").write_text("def plain(turn): ...")
    done = await run("serve", target, "--port", "0", "--replicas", "3", cwd=tmp_path)
    assert done.code == code and done.err.count(says) == 1 and len(done.err.splitlines()) == 1


async def test_a_replica_that_fails_later_is_tried_again_with_pauses(tmp_path: Path):
    """The fleet goes on with those that are left, and takes it back when it can start again."""
    async with serving("agent.py:answer", cwd=tmp_path, replicas=2) as server:
        good = (tmp_path / "agent.py").read_text()
        (tmp_path / "agent.py").write_text("x = = 1")
        kill(server.pids["r1"])
        await wait_until(
            lambda: sum("cannot start" in line for line in server.errors) >= 2, description="it was tried twice"
        )
        await speakers(server, wanted=1)
        (tmp_path / "agent.py").write_text(good)
        await server.until_ready(3)
        assert await server.end() == 0


async def test_keys_are_in_no_argument_and_no_variable(tmp_path: Path):
    """What everybody on the machine can read of a process does not hold what a tenant's key is, one of many or not."""
    many = "".join(f"key-{number}-{'x' * 40}:tenant{number}\n" for number in range(20_000))
    (tmp_path / "keys").write_text(f"{many}very-secret-key:acme\n")
    async with serving("agent.py:answer", "--api-keys", "@keys", cwd=tmp_path, replicas=2) as server:
        for pid in (server.process.pid, *server.pids.values()):
            for file in ("cmdline", "environ"):
                assert b"very-secret" not in Path(f"/proc/{pid}/{file}").read_bytes()
        async with Client(server.url, api_key="very-secret-key") as client:
            await client.sessions.create()


async def test_two_fleets_do_not_mix_on_one_port(tmp_path: Path):
    """SO_REUSEPORT would let them: half of the requests would see other sessions."""
    async with serving("agent.py:answer", cwd=tmp_path, replicas=2) as server:
        port = server.url.rpartition(":")[2]
        done = await run("serve", "agent.py:answer", "--port", port, "--replicas", "2", cwd=tmp_path)
        assert done.code == 1 and f"cannot listen on 127.0.0.1:{port}" in done.err


def test_replicas_have_stable_names_and_ports():
    """`r1`, `r2`, …, or those of a name that was given; one port for all, and one for each where that is wanted."""
    assert [one.replica_id for one in replicas(Config(replicas=3), port=7)] == ["r1", "r2", "r3"]
    named = replicas(Config(replicas=2, replica_id="web-0", own_port=9000), port=7)
    assert [(one.replica_id, one.port, one.own_port) for one in named] == [("web-0.1", 7, 9000), ("web-0.2", 7, 9001)]
    assert [one.own_port for one in replicas(Config(replicas=2), port=7)] == [0, 0]


async def test_each_replica_answers_on_its_own_port(tmp_path: Path):
    """So that the figures of each can be asked for; wherever they are asked for, each says whose it is."""
    first = free_ports(2)
    async with serving("agent.py:answer", "--own-port", str(first), cwd=tmp_path, replicas=2) as server:
        own = {f"http://127.0.0.1:{first + number}": {f"r{number + 1}"} for number in range(2)}
        async with httpx2.AsyncClient() as http:
            for url, wanted in own.items():
                assert await named(http, url) == wanted
            assert await named(http, server.url) < {"r1", "r2"}
        assert await server.end() == 0


async def named(http: httpx2.AsyncClient, url: str) -> set[str]:
    """The replicas that the figures there are labelled with."""
    lines = [line for line in (await http.get(f"{url}/metrics")).text.splitlines() if not line.startswith("#")]
    return {line.partition('replica="')[2].partition('"')[0] for line in lines}


async def test_a_fleet_outlives_whoever_read_its_first_lines(tmp_path: Path):
    """`dalsegno serve … | head -1`: the replicas that come up later have nobody to tell, and serve."""
    (tmp_path / "agent.py").write_text("async def answer(turn): ...")
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *command("serve", "agent.py:answer", "--port", "0", "--replicas", "2"),
        cwd=tmp_path,
        env=environment(),
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    with os.fdopen(reading) as lines:
        url = (await asyncio.to_thread(lines.readline)).split()[1]
    running = Running(process)
    try:
        async with httpx2.AsyncClient() as http:

            async def both() -> bool:
                # each time over a new connection, for the kernel to choose
                answer = await http.get(f"{url}/health", headers={"connection": "close"})
                seen.add(answer.json()["replica"])
                return seen == {"r1", "r2"}

            seen: set[str] = set()
            await wait_until(both, description="both replicas have answered", timeout=20)
        assert await running.end() == 0
    finally:
        await ended(process)


def place() -> Place:
    """A place of a fleet whose order is longer than what a socket takes at once."""
    keys = tuple((f"key-{number}", "tenant") for number in range(50_000))
    return Place(Config(target="nowhere.py:answer", api_keys=keys), on_ready=lambda ready: None)


async def test_a_replica_that_is_to_leave_before_it_is_there_leaves():
    """SIGTERM to a fleet that is just coming up: nobody stays behind and serves."""
    one = place()
    life = asyncio.create_task(one.live())
    await one.until(lambda one: one.state == "starting")
    assert one.pid == 0
    one.leave()
    assert (await asyncio.wait_for(life, 10)).code == -signal.SIGTERM


async def test_a_replica_that_dies_before_it_knows_its_order_is_one_that_died(monkeypatch: pytest.MonkeyPatch):
    """It concerns none of the others."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    end = await asyncio.wait_for(place().live(), 10)
    assert (end.code, end.failed) == (1, None)


async def test_a_process_that_cannot_be_had_is_a_replica_that_cannot_start(monkeypatch: pytest.MonkeyPatch):
    """Too many processes, too many files: it is tried again later, and the others go on."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    end = await asyncio.wait_for(place().live(), 10)
    assert str(end).startswith("cannot start: ") and "/nowhere/python" in str(end)


async def test_the_terminal_s_interrupt_reaches_the_supervisor_only(tmp_path: Path):
    """Replicas are in sessions of their own, so that Ctrl-C is one signal to each and not two."""
    async with serving("agent.py:answer", cwd=tmp_path, replicas=2) as server:
        for pid in server.pids.values():
            assert os.getsid(pid) == pid
        assert await server.end(signal.SIGINT) == 0
