"""What a configuration must not be, although each of its settings is fine."""

import re

from dalsegno.errors import ConfigError
from dalsegno.ops.config import Config


def refuse_open_door(config: Config) -> None:
    """Raise `ConfigError` when everybody could reach a server that asks nobody for a key."""
    if not config.api_keys and not config.insecure and not is_loopback(config.host):
        raise ConfigError(
            f"without API keys the server listens on loopback only, and {config.host!r} is not: "
            "set DALSEGNO_API_KEYS, or say --insecure"
        )


def refuse_split_fleet(config: Config) -> None:
    """Raise `ConfigError` when the replicas of a fleet would not see the same sessions."""
    if config.replicas > 1 and in_memory(config.warm):
        raise ConfigError("a warm tier in memory is seen by one process only: --replicas needs a file or a database")


def refuse_lost_payloads(config: Config) -> None:
    """Raise `ConfigError` when the log would outlive the large payloads that it points to."""
    if in_memory(config.cold) and not in_memory(config.warm):
        raise ConfigError("a cold tier in memory is lost with its process, and the log is not: choose another --cold")


def in_memory(url: str) -> bool:
    """Whether the tier is its process's own, and ends with it."""
    return url.partition(":")[0].lower() == "memory"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it. A name is not looked up: what it means may change."""
    return host in ("localhost", "::1", "[::1]") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None
