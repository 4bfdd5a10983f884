"""A replica that does what a test tells it to, byte for byte: real sockets, scripted answers, no rules of its own."""

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from dalsegno.client import Client, Retry
from dalsegno.testing.listener import Listener

End = Literal["keep", "finish", "reset", "hang"]
QUICK = Retry(rounds=3, base=timedelta(milliseconds=1), longest=timedelta(milliseconds=2), idle=timedelta(seconds=5))


@dataclass
class Request:
    """What arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """Raw bytes, and how the connection goes on after them."""

    raw: bytes = b""
    end: End = "keep"

    def cut(self, after: int, *, end: End = "reset") -> "Reply":
        return Reply(self.raw[:after], end)


def answer(status: int, body: object = None, **headers: str) -> Reply:
    """A whole answer with a JSON body."""
    raw = b"" if body is None else json.dumps(body).encode()
    head = {"content-type": "application/json", "content-length": str(len(raw))}
    head |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return Reply(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + raw)


def problem(status: int, code: str, outcome: str = "not_applied", **headers: str) -> Reply:
    """A refusal as the contract shapes it."""
    return answer(status, {"code": code, "detail": f"because {code}", "outcome": outcome}, **headers)


def streamed(*frames: bytes) -> Reply:
    """An event stream in one chunk per frame; the chunk that ends the body comes last."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%s\r\n" % (len(frame), frame) for frame in (b"retry: 500\n: ok\n\n", *frames)]
    return Reply(head + b"".join(chunks) + b"0\r\n\r\n")


def frame(cursor: str, type: str, data: object = None, *, turn: str | None = "t") -> bytes:
    """One event as the server writes it. Without an offset in its cursor it is durable."""
    seq = {} if type in ("item.added", "item.delta", "item.dropped") else {"seq": int(cursor.split(".")[0])}
    body = {**seq, "type": type, "turn": turn, "at": "2026-01-01T00:00:00Z", "data": data or {}}
    return f"id: {cursor}\nevent: {type}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


RECEIPT = {"session": "s", "turn": "t", "seq": 1, "status": "running", "replayed": False}


class Replica(Listener):
    """Serves `respond(request)`, or what is left of `script`; keeps what it was asked."""

    def __init__(self, script: Iterable[Reply] = (), respond: Callable[[Request], Reply] | None = None) -> None:
        super().__init__(self._answer)
        self.script = list(script)
        self.respond = respond
        self.requests: list[Request] = []

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await _read(reader)) is not None:
            self.requests.append(request)
            reply = self.respond(request) if self.respond else self.script.pop(0)
            writer.write(reply.raw)
            await writer.drain()
            if reply.end == "hang":
                await reader.read()
            if reply.end == "reset":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            if reply.end != "keep":
                return


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    method, path, _ = first.split(" ")
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


class Fleet(AsyncExitStack):
    """Some replicas and a client for them, entered together."""

    def __init__(self, *replicas: Replica, retry: Retry = QUICK) -> None:
        super().__init__()
        self.replicas, self.retry = replicas, retry

    async def client(self) -> Client:
        for replica in self.replicas:
            await self.enter_async_context(replica)
        return await self.enter_async_context(Client([each.url for each in self.replicas], retry=self.retry))

    def requests(self) -> Iterable[Request]:
        return [request for replica in self.replicas for request in replica.requests]
