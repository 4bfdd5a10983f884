"""One replica's process: builds, serves, says `ready`, and leaves in order when it is told to.

SIGTERM, SIGINT    stop claiming, abort the streams, hand turns over at their next step, exit 0
the second one     exit at once, as by a crash: others take over
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Literal

from dalsegno.http.app import App
from dalsegno.http.server import Bearing, Server, listen
from dalsegno.ops.address import AddressTaken, url_of
from dalsegno.ops.build import assembled
from dalsegno.ops.config import Config
from dalsegno.ops.lifeline import Ready
from dalsegno.ops.loop import factory, steady
from dalsegno.ops.watchdog import Watchdog
from dalsegno.ports import Agent

log = logging.getLogger("dalsegno.serve")

LEFT_BEHIND = timedelta(seconds=5)
"""How long what hears of no cancellation may keep the process, once everything else has left."""
GRACE = timedelta(seconds=2)
"""What requests that are being answered get once the turns have been handed over."""
Share = Literal["alone", "fleet"]
THREADS_PER_TURN = 8
"""How many of an agent's functions that are not async may run at once, for each turn that a replica may have. With
fewer, threads that wait for a model could take all that there are, and asyncio looks up the model's address in such a
thread: nobody would go on. They are started when they are needed.
"""


def serve(config: Config, agent: Agent, *, announce: Callable[[Ready], None], share: Share = "alone") -> None:
    """Serve until told to leave. `announce` is called once, when the replica can serve.

    Raises `ConfigError`, `Unavailable` or `AddressTaken` when it cannot.
    """
    with asyncio.Runner(loop_factory=factory()) as runner:
        runner.run(_serve(config, agent, announce, share))
        last = threading.Timer(LEFT_BEHIND.total_seconds(), os._exit, (0,))
        last.daemon = True
        last.start()
    last.cancel()


async def _serve(config: Config, agent: Agent, announce: Callable[[Ready], None], share: Share) -> None:
    async with assembled(config, agent) as assembly:
        member = assembly.replica.member
        with contextlib.ExitStack() as stack:
            listeners = [stack.enter_context(contextlib.closing(one)) for one in listening(config, share)]
            ready = Ready(url_of(config.host, listeners[0].getsockname()[1]), member.id, member.pid)
            server = ReplicaServer(assembly.app, leaving=assembly.replica.drain, started=lambda: announce(ready))
            loop = asyncio.get_running_loop()
            threads = THREADS_PER_TURN * config.max_turns
            loop.set_default_executor(ThreadPoolExecutor(threads, thread_name_prefix="dalsegno-agent"))
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, server.leave, number.name)
            steady()
            watchdog = Watchdog()
            watchdog.start()
            stack.callback(watchdog.stop)
            await server.serve(sockets=listeners)


class ReplicaServer(Server):
    """The HTTP server under our own signals: it says when it serves, and a signal means what this module says."""

    def __init__(self, app: App, *, leaving: Callable[[], Awaitable[None]], started: Callable[[], None]) -> None:
        super().__init__(app, bearing=Bearing(grace=GRACE), leaving=leaving)
        self._on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, then say so."""
        await super().startup(sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn would end the process by the signal it was asked to leave with; leaving in order is exit 0."""
        yield

    def leave(self, name: str) -> None:
        """Leave in order; when asked again, at once."""
        if self.should_exit:
            log.warning("%s again: leaving at once", name)
            os._exit(1)
        log.info("%s: draining", name)
        self.should_exit = True


def listening(config: Config, share: Share) -> Iterator[socket.socket]:
    """The socket of the port that is shared, then that of the replica's own port. Raises `AddressTaken`."""
    yield _listening(config.host, config.port, share)
    if config.own_port:
        yield _listening(config.host, config.own_port, "alone")


def _listening(host: str, port: int, share: Share) -> socket.socket:
    try:
        return listen(host.strip("[]"), port, share=share)
    except OSError as error:
        raise AddressTaken(host, port, error) from None
