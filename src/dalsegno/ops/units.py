"""Durations and sizes as people write them: `500ms`, `5s`, `1m30s`; `1MiB`, `64KB`, `4096`. Values in, values out."""

import re
from datetime import timedelta

from dalsegno.errors import ConfigError

_DURATION_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"([0-9]{1,15})\s*([a-z]*)")


def parse_duration(text: str) -> timedelta:
    """The duration that numbers with units add up to, to the microsecond. Raises `ConfigError` naming what is wrong."""
    if text.isdigit():
        raise ConfigError(f"{text!r} has no unit: write {text}s, {text}ms or {text}m")
    if not _DURATION.fullmatch(text):
        raise ConfigError(f"{text!r} is no duration: write for example 500ms, 5s, 2m or 1m30s")
    try:
        parts = (timedelta(milliseconds=float(n) * _DURATION_UNITS[unit]) for n, unit in _DURATION_PART.findall(text))
        return sum(parts, start=timedelta())
    except OverflowError:
        raise ConfigError(f"{text!r} is longer than any duration can be") from None


def format_duration(duration: timedelta) -> str:
    """The shortest spelling that `parse_duration` reads back as the same duration."""
    microseconds = duration // timedelta(microseconds=1)
    if microseconds < 0:
        return f"-{format_duration(-duration)}"
    pieces = []
    for unit, milliseconds in _DURATION_UNITS.items():
        count, microseconds = divmod(microseconds, milliseconds * 1000)
        if count:
            pieces.append(f"{count}{unit}")
    if microseconds:
        whole = pieces.pop()[:-2] if pieces and pieces[-1].endswith("ms") else "0"
        pieces.append(f"{whole}.{microseconds:03}".rstrip("0") + "ms")
    return "".join(pieces) or "0s"


def parse_size(text: str) -> int:
    """A number of bytes. Raises `ConfigError` naming what is wrong."""
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None or found[2] not in _SIZE_UNITS:
        raise ConfigError(f"{text!r} is no size: write for example 65536, 64KB, 1MiB")
    return int(found[1]) * _SIZE_UNITS[found[2]]


def format_size(size: int) -> str:
    """The shortest exact spelling in binary units."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)
