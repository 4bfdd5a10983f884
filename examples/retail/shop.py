"""The shop: a small HTTP service of its own. It keeps the books, honours idempotency keys, and knows no agent.

    python -m retail.shop [--port 8100] [--data FOLDER] [--journal FILE] [--answers-after SECONDS]

POST /operations/{name}  carry out one of the fifteen operations of `rules.py`: arguments in, answer out, as JSON;
                         409 and a reason when the shop refuses
PUT /visits/{session}    {"branch": 2}: that customer is at this branch, which has books of its own; else at branch 0
GET /books               the books of all branches

What changes the books honours `Idempotency-Key`: the first request of a key decides, every later one is told what was
decided then, and one that asks for something else is a mistake (422). A transfer to a human honours no key: whoever
asks twice is transferred twice. Each request is a line in the journal before it is answered, so the journal knows
every attempt and every application.
"""

import argparse
import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from retail.rules import OPERATIONS, WRITES, Json, Refused, act

DATA = Path(__file__).parent / "data"
LOOKING_SECONDS = 0.005
ANSWERING_SECONDS = 0.06
"""What is changed is changed at once; the answer takes its time. A crash in between is what keys are for."""


class KeyReused(Exception):
    """One key, two different requests: nobody may ever do that."""


class Shop:
    """Books, decisions by key, and the journal."""

    def __init__(self, data: Path, journal: Path | None = None) -> None:
        self._data = data
        self._branches: dict[int, Json] = {}
        self._visits: dict[str, int] = {}
        self._decided: dict[str, tuple[str, Json]] = {}
        self._journal = None if journal is None else journal.open("ab", buffering=0)

    def visit(self, session: str, branch: int) -> None:
        """The customer of this session is at that branch."""
        self._visits[session] = branch

    def branch(self, number: int) -> Json:
        """The books of one branch; a fresh copy when it is first asked for."""
        if number not in self._branches:
            self._branches[number] = books_of(self._data)
        return self._branches[number]

    def books(self) -> list[Json]:
        """The books of all branches."""
        return [self.branch(number) for number in range(1 + max(self._branches, default=0))]

    def handle(self, name: str, arguments: Json, *, key: str, session: str) -> tuple[str, Json]:
        """Carry a request out: what came of it in a word (`read`, `applied`, `refused`, `absorbed`), and the answer.

        Raises `KeyReused`.
        """
        branch = self._visits.get(session, 0)
        if name not in WRITES:
            answer = self._act(branch, name, arguments)
            return ("applied" if name == "transfer_to_human_agents" else "read"), answer
        if not key:
            answer = self._act(branch, name, arguments)
            return ("refused" if "refused" in answer else "applied"), answer
        asked = json.dumps([name, branch, arguments], sort_keys=True)
        if key in self._decided:
            first, answer = self._decided[key]
            if first != asked:
                raise KeyReused(f"{key}: {first} and {asked}")
            return "absorbed", answer
        answer = self._act(branch, name, arguments)
        self._decided[key] = asked, answer
        return ("refused" if "refused" in answer else "applied"), answer

    def note(self, **line: Any) -> None:
        """One line, in one write, before anybody is answered."""
        if self._journal is not None:
            self._journal.write(json.dumps({**line, "at": time.time_ns() // 10**6}).encode() + b"\n")

    def _act(self, branch: int, name: str, arguments: Json) -> Json:
        try:
            done = act(self.branch(branch), name, arguments)
        except Refused as refusal:
            return {"refused": str(refusal)}
        except TypeError as misfit:
            return {"refused": f"{name}: {misfit}"}
        return {"done": json.loads(json.dumps(done))}


def books_of(folder: Path) -> Json:
    """A fresh copy of the shop's database."""
    books: Json = json.loads((folder / "db.json").read_bytes())
    return books


def app_of(shop: Shop, *, answers_after: float = ANSWERING_SECONDS) -> Starlette:
    """The shop's routes."""

    async def operate(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in OPERATIONS:
            return JSONResponse({"error": f"no operation is named {name}"}, 404)
        names = {"key": "idempotency-key", "session": "session", "turn": "turn", "client": "user-agent"}
        who = {field: request.headers.get(header, "") for field, header in names.items()}
        status, outcome, answer = 200, "misused", Json()
        try:
            outcome, answer = shop.handle(name, await request.json(), key=who["key"], session=who["session"])
        except ClientDisconnect:
            return Response(status_code=400)  # whoever asked died in the middle of it
        except KeyReused as misuse:
            status, answer = 422, {"error": str(misuse)}
        shop.note(**who, name=name, outcome=outcome)
        await asyncio.sleep(LOOKING_SECONDS if outcome == "read" else answers_after)
        return JSONResponse(answer, 409 if "refused" in answer else status)

    async def visit(request: Request) -> Response:
        shop.visit(request.path_params["session"], int((await request.json())["branch"]))
        return Response(status_code=204)

    async def books(request: Request) -> Response:
        return JSONResponse(shop.books())

    return Starlette(
        routes=[
            Route("/operations/{name}", operate, methods=["POST"]),
            Route("/visits/{session}", visit, methods=["PUT"]),
            Route("/books", books),
        ]
    )


def main() -> None:
    """Serve until the process is told to end."""
    options = argparse.ArgumentParser(prog="python -m retail.shop")
    options.add_argument("--port", type=int, default=8100, help="0: a free one")
    options.add_argument("--data", type=Path, default=DATA, help="a folder with a db.json")
    options.add_argument("--journal", type=Path, help="a file that each request is a line of")
    options.add_argument("--answers-after", type=float, default=ANSWERING_SECONDS, metavar="SECONDS")
    chosen = options.parse_args()
    shop = Shop(chosen.data, chosen.journal)
    with socket.create_server(("127.0.0.1", chosen.port), backlog=1024) as listening:
        print(f"shop http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app_of(shop, answers_after=chosen.answers_after), log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
