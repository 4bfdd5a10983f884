"""Configuration: options win over the environment, the environment over defaults. The only reader of the environment.

The fields of `Config` and `Reach` are the whole list: their names are the flags and variables, their metadata the help
texts and bounds. The command line is generated from them, so it cannot know more or less than the environment does.
"""

import difflib
import os
import re
import typing
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from dalsegno.errors import ConfigError
from dalsegno.ops.keys import Pairs, read_keys
from dalsegno.ops.units import format_duration, format_size, parse_duration, parse_size

PREFIX = "DALSEGNO_"
OTHERS = re.compile(r"DALSEGNO_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP)(_\w+)?)")
"""Variables that are not ours: what Kubernetes sets for a service named `dalsegno`."""
SERVICE_LINK = re.compile(r"(tcp|udp)://.*")

C = TypeVar("C", bound=msgspec.Struct)


def _about(text: str, metavar: str = "", **bounds: Any) -> msgspec.Meta:
    extra = {"metavar": metavar, "least": bounds.pop("least", None), "most": bounds.pop("most", None)}
    return msgspec.Meta(description=text, extra=extra, **bounds)


MILLISECOND, HOUR, DAY = timedelta(milliseconds=1), timedelta(hours=1), timedelta(days=1)
FOREVER: Mapping[str, Any] = {"metavar": "DURATION", "least": timedelta(0), "most": 36_500 * DAY}

Warm = Annotated[str, _about("The log's database: the only truth. Default: a SQLite file in ./.dalsegno.", "URL")]
Hot = Annotated[str, _about("Live text and wake-ups; may be lost. Default: kept by the warm tier.", "URL")]
Cold = Annotated[str, _about("Large payloads. Default: a directory beside the SQLite file.", "URL")]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a fleet of replicas is started with."""

    target: str = ""
    agent_name: Annotated[
        str, _about("The name that sessions ask for this agent by.", "NAME", min_length=1, max_length=256)
    ] = "default"
    host: Annotated[str, _about("The address to listen on.", "ADDRESS", min_length=1)] = "127.0.0.1"
    port: Annotated[int, _about("The port to listen on; 0 = any free one.", "PORT", ge=0, le=65535)] = 8000
    own_port: Annotated[
        int,
        _about("Listen here, too; replica n of a fleet on this port + n - 1. 0 = no.", "PORT", ge=0, le=65535 - 255),
    ] = 0
    replicas: Annotated[int, _about("How many processes share the port, supervised.", "N", ge=1, le=256)] = 1
    replica_id: Annotated[
        str, _about("This replica's name among its peers.", "ID", pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")
    ] = "r1"
    warm: Warm = ""
    hot: Hot = ""
    cold: Cold = ""
    lease_ttl: Annotated[
        timedelta,
        _about(
            "How long a vanished host keeps its sessions.", "DURATION", least=timedelta(milliseconds=200), most=HOUR
        ),
    ] = timedelta(seconds=5)
    api_keys: Annotated[
        Pairs, _about("KEY:TENANT,KEY:TENANT… or @FILE with one a line; a KEY may be sha256:<hex>.", "KEYS")
    ] = ()
    insecure: Annotated[bool, _about("Listen on any address without API keys.")] = False
    drain_timeout: Annotated[
        timedelta, _about("How long a leaving replica waits for its turns.", "DURATION", least=timedelta(0), most=HOUR)
    ] = timedelta(seconds=20)
    turn_timeout: Annotated[
        timedelta, _about("How long a turn may run in one go.", "DURATION", least=timedelta(seconds=1), most=30 * DAY)
    ] = timedelta(hours=1)
    max_turns: Annotated[Count, _about("Turns at once, per replica.", "N")] = 256
    max_queue: Annotated[Count, _about("Turns that may wait in one session.", "N")] = 100
    max_context: Annotated[int, _about("What a model is shown at most before old turns give way.", "SIZE", ge=1024)] = (
        256 * 1024
    )
    max_inline: Annotated[
        int, _about("A text in the log at most; a larger one is an artifact.", "SIZE", ge=16 * 1024, le=2**30)
    ] = 32 * 1024
    max_body: Annotated[int, _about("A request's body at most.", "SIZE", ge=1024, le=2**30)] = 1024 * 1024
    max_import: Annotated[int, _about("An imported session at most.", "SIZE", ge=1024, le=2**34)] = 64 * 1024 * 1024
    max_requests: Annotated[Count, _about("Requests at once, per replica.", "N")] = 2000
    max_streams: Annotated[Count, _about("Open streams, per replica.", "N")] = 20_000
    max_streams_per_tenant: Annotated[Count, _about("Open streams of one tenant, per replica.", "N")] = 10_000
    poll_interval: Annotated[
        timedelta,
        _about("How often work is looked for when no hint came.", "DURATION", least=10 * MILLISECOND, most=HOUR),
    ] = timedelta(milliseconds=500)
    settling: Annotated[bool, _about("Sessions are still moving here: 503 for unknown ones, and begin none.")] = False
    archive_after: Annotated[
        timedelta,
        _about("Sessions idle for so long move to the cold tier until they are used again; 0s = never.", **FOREVER),
    ] = timedelta(0)
    sweep_after: Annotated[
        timedelta,
        _about("The cold tier is swept of what sessions idle for so long do not point to; 0s = never.", **FOREVER),
    ] = DAY
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _about("How much is logged to stderr; debug also shows what agents and tools raise, in their words."),
    ] = "info"
    log_format: Annotated[Literal["text", "json"], _about("Lines for people, or one JSON object a line.")] = "text"

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value}' for name, value in shown(self).items())})"

    def __rich_repr__(self) -> Iterator[tuple[str, str]]:  # type: ignore[override]
        yield from shown(self).items()


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """Where `dalsegno sessions` finds the sessions: a server, or a warm tier directly."""

    url: Annotated[str, _about("A server, as in http://127.0.0.1:8000.", "URL")] = ""
    api_key: Annotated[str, _about("The key to present to the server.", "KEY", pattern=r"^[!-~]*\Z")] = ""
    warm: Warm = ""
    cold: Cold = ""
    tenant: Annotated[str, _about("Whose sessions, when the warm tier is read directly.", "NAME", min_length=1)] = (
        "default"
    )

    def __repr__(self) -> str:
        return f"Reach({', '.join(f'{name}={value}' for name, value in shown(self).items())})"

    def __rich_repr__(self) -> Iterator[tuple[str, str]]:  # type: ignore[override]
        yield from shown(self).items()


KINDS: tuple[type[msgspec.Struct], ...] = (Config, Reach)
SECRETS = frozenset({"api_key", "api_keys"})
NO_SETTING = frozenset({"target"})


class Setting(msgspec.Struct, frozen=True):
    """One field, as people see it."""

    name: str
    kind: Any
    default: Any
    help: str
    metavar: str

    @property
    def flag(self) -> str:
        """Its option."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"{PREFIX}{self.name.upper()}"

    @property
    def plain(self) -> Any:
        """Its type without metadata."""
        return typing.get_args(self.kind)[0] if typing.get_origin(self.kind) is Annotated else self.kind

    @property
    def default_text(self) -> str:
        """Its default as one would write it; empty if there is nothing to say."""
        return "" if self.default in ("", (), False) else spelled(self, self.default)


def settings(kind: type[msgspec.Struct]) -> tuple[Setting, ...]:
    """The settings of `Config` or `Reach`, in order."""
    kinds = typing.get_type_hints(kind, include_extras=True)
    return tuple(
        Setting(
            field.name,
            kinds[field.name],
            field.default,
            _meta(kinds[field.name], "description"),
            _metavar(kinds, field),
        )
        for field in msgspec.structs.fields(kind)
        if field.name not in NO_SETTING
    )


def environment() -> Mapping[str, str]:
    """The process's environment, for `resolve` and nobody else."""
    return os.environ


def resolve(kind: type[C], options: Mapping[str, Any], environ: Mapping[str, str], **fixed: Any) -> C:
    """The configuration. `options` are those given on the command line, as text; None = not given.

    Raises `ConfigError` that names the flag or variable and what to write instead; a secret's value is never in it.
    """
    refuse_unknown(environ)
    values: dict[str, Any] = {}
    for setting in settings(kind):
        given, origin = options.get(setting.name), setting.flag
        if given is None and _is_set(setting.variable, environ):
            given, origin = environ[setting.variable], setting.variable
        if given is not None:
            values[setting.name] = _value(setting, given, origin)
    return kind(**values, **fixed)


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """Raise `ConfigError` for a `DALSEGNO_*` variable that means nothing: a typo must not run with a default."""
    known = {setting.variable for kind in KINDS for setting in settings(kind)}
    unknown = sorted(
        name for name in environ if name.startswith(PREFIX) and name not in known and not OTHERS.fullmatch(name)
    )
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
        raise ConfigError(f"there is no setting {unknown[0]}: {hint}")


def spelled(setting: Setting, value: Any) -> str:
    """A value as one would write it; secrets are not written."""
    if setting.name in SECRETS:
        return "***" if value else ""
    if isinstance(value, timedelta):
        return format_duration(value)
    if setting.metavar == "SIZE":
        return format_size(value)
    if setting.metavar == "URL":
        return redacted(value)
    return str(value)


def shown(config: msgspec.Struct) -> dict[str, str]:
    """Every setting as text, without secrets."""
    return {setting.name: spelled(setting, getattr(config, setting.name)) for setting in settings(type(config))}


def redacted(url: str) -> str:
    """The URL without its password."""
    return re.sub(r"(://[^/?#\s:@]*):[^/?#\s]*@", r"\1:***@", url)


def _is_set(variable: str, environ: Mapping[str, str]) -> bool:
    """An empty variable is one that is not set; Kubernetes' `DALSEGNO_PORT=tcp://…` is not ours."""
    given = environ.get(variable, "")
    return given != "" and not (variable == f"{PREFIX}PORT" and SERVICE_LINK.fullmatch(given))


def _value(setting: Setting, given: Any, origin: str) -> Any:
    try:
        value: Any = _read(setting, given) if isinstance(given, str) else given
        value = msgspec.convert(value, setting.kind, strict=False)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin}: {_complaint(setting, given, error)}") from None
    least, most = _meta(setting.kind, "extra").get("least"), _meta(setting.kind, "extra").get("most")
    if (least is not None and value < least) or (most is not None and value > most):
        raise ConfigError(f"{origin}: {given} is outside {format_duration(least)} to {format_duration(most)}")
    return value


def _read(setting: Setting, text: str) -> Any:
    if setting.plain is timedelta:
        return parse_duration(text)
    if setting.metavar == "SIZE":
        return parse_size(text)
    if setting.name == "api_keys":
        return read_keys(text)
    return text


def _complaint(setting: Setting, given: Any, error: msgspec.ValidationError) -> str:
    if setting.name in SECRETS:
        return "the value will not do"
    choices = ("true", "false") if setting.plain is bool else typing.get_args(setting.plain)
    expected = str(error).partition(", got ")[0].replace("`int`", "a whole number").replace("`str`", "text")
    wanted = f"choose {', '.join(choices)}" if choices else f"{expected[:1].lower()}{expected[1:]}"
    return f"{given!r} will not do: {wanted}"


def _meta(kind: Any, name: Literal["description", "extra"]) -> Any:
    found = [getattr(meta, name) for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    return next((value for value in reversed(found) if value), {} if name == "extra" else "")


def _metavar(kinds: Mapping[str, Any], field: msgspec.structs.FieldInfo) -> str:
    return str(_meta(kinds[field.name], "extra").get("metavar", ""))
