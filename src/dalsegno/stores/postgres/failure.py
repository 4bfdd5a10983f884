"""What PostgreSQL's errors mean to a port's caller, and which of them are worth another try."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from dalsegno.errors import ConfigError, DalsegnoError, Outcome, Refused, Unavailable, Unreadable

AGAIN = frozenset({"40001", "40P01", "55P03"})
"""Serialization, deadlock, lock timeout: nothing was written, and the same may succeed now."""

READ_ONLY = "25006"

# By the whole code or its class, the more special first.
_UNREACHABLE = {
    READ_ONLY: "the database is read-only",
    "57P03": "the database is starting up or shutting down",
    "57014": "the statement took too long",
    "55P03": "a lock was waited for too long",
    "53100": "the database's disk is full",
    "53300": "the database has no connection left",
    "53": "the database is out of resources",
    "58": "the database's disk fails",
    "40": "others wrote at the same time, again and again",
}
_REFUSALS = {
    "too many c": _UNREACHABLE["53300"],
    "connection slots": _UNREACHABLE["53300"],
    "hot standby mode": "the database has no primary, only a standby",
    "starting up": _UNREACHABLE["57P03"],
    "shutting down": _UNREACHABLE["57P03"],
}
_WRONG_SET_UP = {
    "28": "the database does not let us in",
    "3D": "there is no such database",
    "42": "the schema does not fit",
}


def translated(error: psycopg.Error, *, lost: Outcome = "not_applied") -> DalsegnoError:
    """The error that a port's caller understands. `lost` is what is known when the connection broke."""
    code = error.sqlstate
    said = " ".join(str(error).split())
    if code is None or code in ("57P01", "57P02", "57P05"):
        return Unavailable(f"the connection to the database was lost: {said}", outcome=lost)
    if code.startswith("XX") or code == "23505":
        return Unreadable(f"the database is damaged: {said}")
    if code.startswith("22"):
        return Refused("invalid_request", f"the database cannot store this: {said}")
    meaning = _UNREACHABLE.get(code) or _UNREACHABLE.get(code[:2]) or _WRONG_SET_UP.get(code[:2])
    return Unavailable(f"{meaning or 'the database refused'}: {said}", outcome="not_applied")


def unreachable(error: psycopg.Error) -> Unavailable:
    """For whoever tried to connect. Then there is no code, only what the server or the system says."""
    said = " ".join(str(error).split())
    meaning = next((meaning for words, meaning in _REFUSALS.items() if words in said), "the database cannot be reached")
    return Unavailable(f"{meaning}: {said}", outcome="not_applied")


def at_start(error: psycopg.Error) -> DalsegnoError:
    """As `translated`, for whoever opens the store: what only an operator can change is a wrong configuration."""
    if error.sqlstate is None:
        return unreachable(error)
    meaning = _WRONG_SET_UP.get(error.sqlstate[:2])
    return ConfigError(f"{meaning}: {error}".strip()) if meaning else translated(error)


def is_worth_another_try(error: psycopg.Error) -> bool:
    """Nothing was written, and the same may succeed now."""
    return error.sqlstate in AGAIN


def is_environment(error: psycopg.Error) -> bool:
    """The connection, a lock, the disk or the server: not what was asked for is wrong."""
    code = error.sqlstate
    return code is None or code in ("55P03", READ_ONLY) or code[:2] in ("40", "53", "57", "58", "XX")


@contextmanager
def translating(*, lost: Outcome = "not_applied") -> Iterator[None]:
    """PostgreSQL's errors become ours."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error, lost=lost) from error
