"""Addresses: what cannot be listened on is said in one line, and a fleet's port is its own."""

import contextlib
import socket

from dalsegno.errors import DalsegnoError


class AddressTaken(DalsegnoError):
    """The address cannot be listened on."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        super().__init__(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port or --host")


def url_of(host: str, port: int) -> str:
    """The URL of a server that listens there."""
    bare = host.strip("[]")
    return f"http://[{bare}]:{port}" if ":" in bare else f"http://{bare}:{port}"


def reserved(host: str, port: int) -> socket.socket:
    """The fleet's port, kept for as long as the socket is open; for port 0 a free one. Nothing listens on it yet.

    Raises `AddressTaken`, also when another fleet is there: SO_REUSEPORT alone would mix the two.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        with contextlib.closing(socket.socket(family, kind)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
            address = probe.getsockname()
        keeper = socket.socket(family, kind)
        try:
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            keeper.bind(address)
        except OSError:
            keeper.close()
            raise
        return keeper
    except OSError as error:
        raise AddressTaken(host, port, error) from None
