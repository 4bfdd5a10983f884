"""What the metadata of a framework's tool may say about its effect: `metadata={"dalsegno": {"effect": "keyed"}}`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

from dalsegno.agents.tool import compensation, probing
from dalsegno.core.effect import UnknownPolicy
from dalsegno.core.event import EffectClass
from dalsegno.core.json import Json
from dalsegno.errors import ConfigError
from dalsegno.ports import Call, Output, Tool

METADATA = "dalsegno"
Run = Callable[[Call], Awaitable[Json | Output]]


class _Declared(msgspec.Struct, forbid_unknown_fields=True):
    """The words are those of `@dalsegno.tool`, with times in seconds."""

    effect: EffectClass = "once"
    unknown: UnknownPolicy = "tell"
    gate: Literal["none", "approval"] = "none"
    dedupe: Literal["never", "turn", "session"] = "never"
    timeout_seconds: float = 300.0
    cache_seconds: float | None = None
    probe: Any = None
    compensate: Any = None
    undo_within_seconds: float = 60.0


def declared_by(metadata: Mapping[str, Any] | None, *, name: str, run: Run, description: str = "") -> Tool | None:
    """The tool of that name as its metadata declares it; None if it says nothing. Raises `ConfigError`."""
    said = (metadata or {}).get(METADATA)
    if said is None:
        return None
    try:
        settings = msgspec.convert(said, _Declared)
    except msgspec.ValidationError as error:
        raise ConfigError(f"tool {name}: its metadata {METADATA!r} says what it should not: {error}") from None
    if (settings.unknown == "probe") != callable(settings.probe):
        raise ConfigError(f"tool {name}: `probe` needs a function, and only `unknown='probe'` takes one")
    if settings.compensate is not None and not callable(settings.compensate):
        raise ConfigError(f"tool {name}: `compensate` needs a function")
    return Tool(
        name,
        run,
        description=description,
        effect=settings.effect,
        unknown=settings.unknown,
        gate=settings.gate,
        dedupe=settings.dedupe,
        timeout_seconds=settings.timeout_seconds,
        cache_seconds=settings.cache_seconds,
        probe=None if settings.probe is None else probing(settings.probe),
        compensate=None if settings.compensate is None else compensation(settings.compensate),
        compensate_within_seconds=settings.undo_within_seconds,
    )
