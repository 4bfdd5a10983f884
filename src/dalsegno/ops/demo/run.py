"""`dalsegno demo`: a fleet on a temporary store, the play, the verdict; and then, if wanted, the fleet stays."""

import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from dalsegno.client import Client, SessionHandle
from dalsegno.errors import DalsegnoError
from dalsegno.ops.address import url_of
from dalsegno.ops.config import Config
from dalsegno.ops.demo.ledger import Ledger
from dalsegno.ops.demo.play import RETRY, Play
from dalsegno.ops.demo.stage import Stage
from dalsegno.ops.demo.verdict import Verdict
from dalsegno.ops.logs import log_to_stderr
from dalsegno.ops.supervisor import Supervisor
from dalsegno.ops.tiers import FILE, Places, opened, places

REPLICAS = 3
HOST = "127.0.0.1"
PATIENCE_SECONDS = 25.0
AGENT = """from dalsegno.ops.demo.agent import concierge

answer = concierge({ledger!r})
"""
NEXT = """
The fleet stays up: {replicas} replicas on {url}, until Ctrl-C. Try:

  # say something, and watch the answer as it comes
  curl -N {url}/v1/sessions/{session}/inputs -H 'content-type: application/json' \\
       -H 'accept: text/event-stream' -H 'idempotency-key: try-1' \\
       -d '{{"type":"message","content":"Tell me the story of the sign"}}'

  # the same request again gives the same answer; nothing is said twice
  # kill any replica meanwhile: the stream's client reconnects with the last id, as in `Last-Event-ID: 17.240`
  kill -9 {pid}

  # everything that happened, as a tree
  {dalsegno} sessions show {session} --url {url}

  # the conversation, and how a replica is
  curl -w '\\n' {url}/v1/sessions/{session}/items
  curl -w '\\n' {url}/health
"""
Then = Literal["leave", "stay"]


class TookTooLong(DalsegnoError):
    """The play did not come to its end."""


def demonstrate(*, port: int, then: Then) -> int:
    """The whole demonstration; the exit code: 0 only if every promise was seen to hold."""
    log_to_stderr(level="error", style="text")
    return asyncio.run(_demonstrate(port, then))


async def _demonstrate(port: int, then: Then) -> int:
    stage, verdict = Stage(), None
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with tempfile.TemporaryDirectory(prefix="dalsegno-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        ledger = Ledger(folder / "ledger.jsonl")
        config = _config(folder, port)
        try:
            async with ledger.listening(folder / "ledger"), _fleet(config, stage) as fleet:
                session, verdict = await _play(fleet, places(config), ledger, stage)
                stage.table(verdict)
                if then == "stay":
                    stage.plain(_next(fleet, session))
                    await fleet.ended()
        except asyncio.CancelledError:
            stage.line("leaving")
    return 0 if verdict is not None and verdict.holds else 1


def _config(folder: Path, port: int) -> Config:
    agent = folder / "agent.py"
    agent.write_text(AGENT.format(ledger=str(folder / "ledger")), "utf-8")
    return Config(
        target=f"{agent}:answer",
        host=HOST,
        port=port,
        replicas=REPLICAS,
        warm=f"sqlite:///{quote(str(folder / FILE))}",
        drain_timeout=timedelta(seconds=3),
        log_level="error",
    )


class Fleet:
    """A supervised fleet, from its start on: when all of it serves, and when it has come to its end."""

    def __init__(self, config: Config, stage: Stage) -> None:
        self.supervisor = Supervisor(config, on_ready=stage.ready)
        self.url = url_of(config.host, self.supervisor.port)
        self._running = asyncio.create_task(self.supervisor.run())

    async def ready(self) -> None:
        """Wait until every replica serves, or raise why that will not be."""
        ready = asyncio.create_task(self._ready())
        try:
            await asyncio.wait({self._running, ready}, return_when="FIRST_COMPLETED")
        finally:
            ready.cancel()
        if self._running.done():
            self._running.result()

    async def ended(self) -> None:
        """Wait until no replica is left."""
        await asyncio.wait({self._running})

    async def leave(self) -> None:
        """Have all replicas leave in order; raise what the fleet has failed of."""
        self.supervisor.leave("the demonstration is over")
        await self._running

    async def _ready(self) -> None:
        for place in self.supervisor.places:
            await place.until(lambda place: place.state == "ready")


@asynccontextmanager
async def _fleet(config: Config, stage: Stage) -> AsyncIterator[Fleet]:
    fleet = Fleet(config, stage)
    stage.line(f"{config.replicas} replicas on one port, one SQLite file in {Path(config.target).parent}:")
    try:
        await fleet.ready()
        yield fleet
    finally:
        await fleet.leave()


async def _play(fleet: Fleet, where: Places, ledger: Ledger, stage: Stage) -> tuple[SessionHandle, Verdict]:
    try:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            Client(fleet.url, retry=RETRY) as client,
            opened(where) as tiers,
        ):
            return await Play(client, warm=tiers.warm, ledger=ledger, stage=stage).run()
    except TimeoutError:
        raise TookTooLong(f"the conversation did not come to its end within {PATIENCE_SECONDS:g} s") from None


def _next(fleet: Fleet, session: SessionHandle) -> str:
    places_ = fleet.supervisor.places
    dalsegno = "dalsegno" if shutil.which("dalsegno") else f"{sys.executable} -m dalsegno"
    return NEXT.format(replicas=len(places_), url=fleet.url, session=session.id, pid=places_[0].pid, dalsegno=dalsegno)
