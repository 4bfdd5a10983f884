"""What a URL of Redis says. A password in it never appears in an error."""

import re
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

import msgspec

from dalsegno.errors import ConfigError

Kind = Literal["single", "sentinel", "cluster"]
Address = tuple[str, int]

NAMESPACE = "dalsegno"
PORT = 6379
SENTINEL_PORT = 26379
KINDS: dict[str, Kind] = {"": "single", "sentinel": "sentinel", "cluster": "cluster"}
TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
FORMS = (
    "redis://[user:password@]host[:port][/db], redis+cluster://host:port,host:port or"
    " redis+sentinel://host:port,host:port/service[/db], each with rediss for TLS and with [?namespace=name];"
    " for the log also [?retention=30d] and [?wait=1]"
)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"([1-9]\d{0,5})([mhd])")


class Place(msgspec.Struct, frozen=True):
    """Where the servers are and what of them is ours. `login` is what every connection is made with.

    Of the log: `retention` is how long a session is kept after its last event, `copies` how many replicas must have a
    commit before it is acknowledged.
    """

    kind: Kind
    addresses: tuple[Address, ...]
    login: dict[str, Any]
    tls: bool = False
    db: int = 0
    service: str = ""
    namespace: str = NAMESPACE
    retention: timedelta | None = None
    copies: int = 0


def parse(url: str) -> Place:
    """The place that a URL names. Raises `ConfigError` that says which forms there are."""
    scheme, _, rest = url.partition("://")
    product, _, kind_name = scheme.lower().partition("+")
    kind = KINDS.get(kind_name)
    if product not in ("redis", "rediss") or kind is None:
        raise _misspelt("the scheme is not known")
    rest, _, query = rest.partition("?")
    netloc, _, path = rest.partition("/")
    userinfo, _, hosts = netloc.rpartition("@")
    options = dict(parse_qsl(query, keep_blank_values=True))
    login = _login(userinfo) | {name: options.pop(name) for name in TLS_OPTIONS if name in options}
    namespace = options.pop("namespace", NAMESPACE)
    retention = _duration(options.pop("retention")) if "retention" in options else None
    copies = options.pop("wait", "0")
    if not (copies.isdecimal() and int(copies) < 10):
        raise _misspelt("wait is a number of replicas")
    if options:
        raise _misspelt(f"there is no option {', '.join(sorted(options))}")
    if not namespace or not set(namespace).isdisjoint("{}"):
        raise _misspelt("a namespace is not empty and has no braces")
    service, db = "", path
    if kind == "sentinel":
        service, _, db = path.partition("/")
        if not service:
            raise _misspelt("the service that the sentinels watch is not named")
    elif kind == "cluster" and path not in ("", "0"):
        raise _misspelt("a cluster has no databases but 0")
    if db and not db.isdecimal():
        raise _misspelt("the database is not a number")
    usual = SENTINEL_PORT if kind == "sentinel" else PORT
    addresses = tuple(_address(host, usual) for host in hosts.split(","))
    if kind == "single" and len(addresses) > 1:
        raise _misspelt("several hosts are a cluster or sentinels")
    return Place(
        kind=kind,
        addresses=addresses,
        login=login,
        tls=product == "rediss",
        db=int(db or 0),
        service=unquote(service),
        namespace=namespace,
        retention=retention,
        copies=int(copies),
    )


def _login(userinfo: str) -> dict[str, Any]:
    user, colon, password = userinfo.partition(":")
    login = {"username": unquote(user), "password": unquote(password) if colon else ""}
    return {name: value for name, value in login.items() if value}


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise _misspelt("a retention is written as 90m, 12h or 30d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _address(text: str, usual: int) -> Address:
    if text.startswith("["):
        host, _, tail = text[1:].partition("]")
        port = tail.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    if not host or (port and not (port.isdecimal() and 0 < int(port) < 65536)):
        raise _misspelt("a host or a port is missing or no number")
    return host, int(port or usual)


def _misspelt(what: str) -> ConfigError:
    return ConfigError(f"this is no URL of Redis: {what}; write {FORMS}")
