"""What the servers keep, asked of them at the start: the log is as durable as they are, and an operator is told."""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from redis.asyncio.connection import Connection
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from dalsegno.errors import ConfigError, Unavailable
from dalsegno.stores.redis.place import Address, Place
from dalsegno.stores.redis.sessions import Sessions

OLDEST = 7
ASK_SECONDS = 2.0
ASKED = ("appendonly", "appendfsync", "maxmemory-policy")
SAFE = "noeviction"
_ABOUT = re.compile(rb"(redis_version|redis_mode|server_mode):(\S+)")

_log = logging.getLogger(__name__)


class Risk(NamedTuple):
    """What may be lost, and how it is mended. `wrong`: acknowledged messages may be lost in a plain restart."""

    state: Literal["degraded", "wrong"]
    what: str


async def examined(place: Place, sessions: Sessions) -> Sequence[Risk]:
    """Ask each server. Raises `ConfigError` where a log cannot be kept, `Unavailable` where nobody answers."""
    route = sessions.looks.route
    servers: dict[Address, bytes] = {}
    for part in sessions.layout.parts:
        servers.setdefault(await route.server(part.all), part.all)
    risks: dict[Risk, None] = {}
    for key in servers.values():
        try:
            async with asyncio.timeout(ASK_SECONDS):
                connection = await route.dial(key)
                try:
                    about, settings = await _told(connection)
                finally:
                    await connection.disconnect(nowait=True)
        except (AuthenticationError, AuthorizationError) as error:
            raise ConfigError("the log's Redis refuses the user or the password") from error
        except (RedisError, OSError, TimeoutError) as error:
            detail = f"the log's Redis cannot be reached: {str(error) or type(error).__name__}"
            raise Unavailable(detail, outcome="not_applied") from error
        _refuse(place, about, settings)
        risks |= dict.fromkeys(risks_of(settings))
    for risk in risks:
        _log.warning("the log on Redis: %s", risk.what)
    return tuple(risks)


def risks_of(settings: Mapping[str, str] | None) -> list[Risk]:
    """What may be lost under these settings of a server; None = it does not tell them."""
    if settings is None:
        return [Risk("degraded", "the server does not tell its settings (CONFIG GET): see that it has appendonly yes")]
    if settings.get("appendonly") != "yes":
        lost = "what was acknowledged since its last snapshot is LOST when the server stops"
        return [Risk("wrong", f"appendonly is off: {lost}; set appendonly yes and appendfsync always")]
    if settings.get("appendfsync") != "always":
        lost = "a host that crashes loses up to the last second" if settings.get("appendfsync") == "everysec" else ""
        lost = lost or "a host that crashes loses what its system had not written yet"
        return [Risk("degraded", f"appendfsync is {settings.get('appendfsync')}: {lost}; set appendfsync always")]
    return []


async def _told(connection: Connection) -> tuple[Mapping[bytes, bytes], Mapping[str, str] | None]:
    """Who the server is, and its settings, if it tells them."""
    await connection.send_command("INFO", "server")
    about = dict(_ABOUT.findall(await connection.read_response()))
    await connection.send_command("CONFIG", "GET", *ASKED)
    try:
        flat: Sequence[bytes] = await connection.read_response()
    except ResponseError:
        return about, None
    words = [word.decode() for word in flat]
    return about, dict(zip(words[::2], words[1::2], strict=True)) if words else None


def _refuse(place: Place, about: Mapping[bytes, bytes], settings: Mapping[str, str] | None) -> None:
    """Raise `ConfigError` where a log cannot be kept."""
    version = about.get(b"redis_version", b"").decode()
    if version and int(version.partition(".")[0]) < OLDEST:
        raise ConfigError(f"the log's server is Redis {version}; it has to be {OLDEST} or newer")
    if place.kind != "cluster" and b"cluster" in (about.get(b"redis_mode"), about.get(b"server_mode")):
        raise ConfigError("the log's server is one of a cluster: write redis+cluster://host:port,host:port")
    policy = (settings or {}).get("maxmemory-policy", SAFE)
    if policy != SAFE:
        raise ConfigError(f"the log's server may evict what it holds: set maxmemory-policy {SAFE} (it is {policy})")
