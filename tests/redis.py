"""Redis and Valkey for tests: the one on PATH, else the newest out of a wheel.

With REDIS_VERSIONS=all every version that is supported, those that are not here skipped by name; with
REDIS_VERSIONS=valkey-8.1,redis-7.0 those.
"""

import os
from pathlib import Path

import pytest

from dalsegno.testing.servers import redis as servers

SUPPORTED = ("redis-7.0", "valkey-8.1", "valkey-9.1")
WANTED = os.environ.get("REDIS_VERSIONS", "preferred")


def versions() -> list[str]:
    """The versions that are wanted, as parameters of a fixture."""
    return sorted({*SUPPORTED, *servers.found()}) if WANTED == "all" else WANTED.split(",")


def program(version: str) -> Path:
    """The server of that version; without one the test is skipped, and says so."""
    if version == "preferred":
        return servers.preferred()
    found = servers.found()
    if version not in found:
        pytest.skip(f"there is no {version} here: put redis-server on PATH")
    return found[version]
