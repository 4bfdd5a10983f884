"""The shop: a process of its own that nothing here ever kills. Five branches, each with a copy of the books.

    python -m tests.acceptance.retail.shop DATA JOURNAL

It prints its port, then answers one JSON request a line over TCP with one JSON line. Write operations honour an
idempotency key: the first request of a key decides, every later one is told what was decided then. A transfer to a
human honours none: whoever asks twice is transferred twice. Every request is a line in the journal before it is
answered, so the journal knows every attempt and every application.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.acceptance.retail.rules import WRITES, Json, Refused, act
from tests.acceptance.retail.tasks import books_of

LINE_MAX_BYTES = 1 << 28
LOOKING_SECONDS = 0.005
ANSWERING_SECONDS = 0.06
"""What is changed is changed at once; the answer takes its time. A crash in between is what keys are for."""


class KeyReused(Exception):
    """One key, two different requests: nobody may ever do that."""


class Shop:
    """Books, decisions by key, and the journal."""

    def __init__(self, data: Path, journal: Path) -> None:
        self._data = data
        self._branches: dict[int, Json] = {}
        self._decided: dict[str, tuple[str, Json]] = {}
        self._journal = journal.open("ab", buffering=0)

    def branch(self, number: int) -> Json:
        """The books of one branch; a fresh copy when it is first asked for."""
        if number not in self._branches:
            self._branches[number] = books_of(self._data)
        return self._branches[number]

    def handle(self, request: Json) -> tuple[str, Json]:
        """Carry a request out: what came of it in a word (`read`, `applied`, `refused`, `absorbed`), and the answer."""
        name = request["name"]
        if name not in WRITES:
            answer = self._act(request)
            return ("applied" if name == "transfer_to_human_agents" else "read"), answer
        asked = json.dumps([name, request["branch"], request["arguments"]], sort_keys=True)
        if request["key"] in self._decided:
            first, answer = self._decided[request["key"]]
            if first != asked:
                raise KeyReused(f"{request['key']}: {first} and {asked}")
            return "absorbed", answer
        answer = self._act(request)
        self._decided[request["key"]] = asked, answer
        return ("refused" if "refused" in answer else "applied"), answer

    def note(self, request: Json, outcome: str) -> None:
        """One line, in one write, before anybody is answered."""
        line = {name: request.get(name) for name in ("branch", "name", "key", "session", "turn", "pid")}
        self._journal.write(json.dumps({**line, "outcome": outcome, "at": time.time_ns() // 10**6}).encode() + b"\n")

    def inventory(self) -> list[Json]:
        """The books of all branches."""
        return [self.branch(number) for number in range(1 + max(self._branches, default=0))]

    def _act(self, request: Json) -> Json:
        try:
            done = act(self.branch(request["branch"]), request["name"], request["arguments"])
        except Refused as refusal:
            return {"refused": str(refusal)}
        return {"done": json.loads(json.dumps(done))}


async def serve(shop: Shop) -> None:
    """Answer requests until the process is told to end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                request = json.loads(line)
                if request["name"] == "inventory":
                    reply: Any = shop.inventory()
                else:
                    try:
                        outcome, reply = shop.handle(request)
                    except KeyReused as misuse:
                        outcome, reply = "misused", {"refused": str(misuse)}
                    shop.note(request, outcome)
                    await asyncio.sleep(LOOKING_SECONDS if outcome == "read" else ANSWERING_SECONDS)
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass  # whoever asked is gone
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=LINE_MAX_BYTES)
    os.write(1, f"{server.sockets[0].getsockname()[1]}\n".encode())
    async with server:
        await server.serve_forever()


async def ask(port: int, request: Json) -> Any:
    """One request to the shop on that port; its answer. Raises `ConnectionError`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LINE_MAX_BYTES)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        line = await reader.readline()
    finally:
        writer.close()
    if not line:
        raise ConnectionError("the shop hung up")
    return json.loads(line)


if __name__ == "__main__":
    asyncio.run(serve(Shop(Path(sys.argv[1]), Path(sys.argv[2]))))
