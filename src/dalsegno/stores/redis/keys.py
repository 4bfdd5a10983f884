"""Where the log keeps what: the names of its keys. A server alone has one part, a cluster has `PARTS`.

All keys of a part share a slot (the braces), so that one script changes a session and what is listed of it in one step.
The number of parts is in their names: what was written for one server is not mistaken for a part of a cluster.
"""

from urllib.parse import quote, unquote

from redis.crc import key_slot

from dalsegno.ports import Ref
from dalsegno.stores.redis.place import Place

PARTS = 64


class Part:
    """One part's keys."""

    def __init__(self, namespace: str, number: int, parts: int) -> None:
        tag = f"{{{namespace}:{number}/{parts}}}:".encode()
        self.number = number
        self.rows = tag + b"row:"
        self.all = tag + b"all"
        self.unerased = tag + b"unerased"
        self.ready = tag + b"ready"
        self.held = tag + b"held"
        self.expiring = tag + b"expiring"
        self.members = tag + b"members"
        self._tag = tag

    def row(self, name: bytes) -> bytes:
        """The session's columns."""
        return self.rows + name

    def events(self, name: bytes) -> bytes:
        """Its events."""
        return self._tag + b"events:" + name

    def known(self, name: bytes) -> bytes:
        """What is known under its keys."""
        return self._tag + b"keys:" + name


class Layout:
    """The parts of a log."""

    def __init__(self, place: Place) -> None:
        count = PARTS if place.kind == "cluster" else 1
        self.parts = tuple(Part(place.namespace, number, count) for number in range(count))

    def part(self, name: bytes) -> Part:
        """The part that a session belongs to."""
        return self.parts[key_slot(name) % len(self.parts)]


def name_of(ref: Ref) -> bytes:
    """A session's name. Those of a tenant are behind one another, in order of id."""
    return f"{quote(ref.tenant, safe='')}/{ref.id}".encode()


def ref_of(name: bytes) -> Ref:
    """Whose name that is."""
    tenant, _, session_id = name.decode().partition("/")
    return Ref(unquote(tenant), session_id)
