"""The retail agent that the replicas serve: fifteen typed tools over the shop, and a model that plays its part.

It is written as a user would write one; only the witness is a test's: every run of the agent and every context that
its model is shown is a line in a file of the process's own, written before anything is said.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import msgspec

from dalsegno import Call, Tool, ToolCall, Turn, Usage, tool
from dalsegno.core.context import Context
from dalsegno.core.json import canonical
from tests.acceptance.retail import shop
from tests.acceptance.retail.rules import Refused
from tests.acceptance.retail.script import next_line
from tests.acceptance.retail.tasks import tasks_of

DATA, WITNESS, SHOP = (f"RETAIL_{name}" for name in ("DATA", "WITNESS", "SHOP"))
"""Variables of the replicas' environment: the data's folder, the folder for witnesses, the shop's port."""
PACE_SECONDS = 0.01

Reason = Literal["no longer needed", "ordered by mistake"]
Asking = Callable[[Call], Awaitable[Any]]


def counter(branch: int) -> tuple[Tool, ...]:
    """The tools, at a branch of the shop."""
    ask = partial(ask_shop, branch)
    return (*desk(ask), *till(ask), *store(ask))


def desk(ask: Asking) -> tuple[Tool, ...]:
    """Tools that look things up."""

    @tool("read")
    async def find_user_id_by_email(email: str, call: Call) -> str:
        """Find a customer by their address of electronic mail."""
        return await ask(call)

    @tool("read")
    async def find_user_id_by_name_zip(first_name: str, last_name: str, zip: str, call: Call) -> str:
        """Find a customer by their name and zip code."""
        return await ask(call)

    @tool("read")
    async def get_user_details(user_id: str, call: Call) -> dict:
        """A customer's profile, payment methods and orders."""
        return await ask(call)

    @tool("read")
    async def get_order_details(order_id: str, call: Call) -> dict:
        """An order: what is in it, what was paid, where it is."""
        return await ask(call)

    @tool("read")
    async def get_product_details(product_id: str, call: Call) -> dict:
        """A product and all its variants."""
        return await ask(call)

    @tool("read")
    async def get_item_details(item_id: str, call: Call) -> dict:
        """One variant of a product."""
        return await ask(call)

    @tool("read")
    async def calculate(expression: str, call: Call) -> str:
        """Do a sum."""
        return await ask(call)

    @tool("once")
    async def transfer_to_human_agents(summary: str, call: Call) -> str:
        """Hand the customer over to a human. The human is called at once, and has no idea of keys."""
        return await ask(call)

    return (
        *(find_user_id_by_email, find_user_id_by_name_zip, get_user_details, get_order_details),
        *(get_product_details, get_item_details, calculate, transfer_to_human_agents),
    )


def till(ask: Asking) -> tuple[Tool, ...]:
    """Tools that change orders nobody has shipped, and profiles."""

    @tool("keyed")
    async def cancel_pending_order(order_id: str, reason: Reason, call: Call) -> dict:
        """Cancel a pending order and refund it."""
        return await ask(call)

    @tool("keyed")
    async def modify_pending_order_address(
        *, order_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str, call: Call
    ) -> dict:
        """Send a pending order to another address."""
        return await ask(call)

    @tool("keyed")
    async def modify_pending_order_payment(order_id: str, payment_method_id: str, call: Call) -> dict:
        """Pay a pending order in another way."""
        return await ask(call)

    @tool("keyed")
    async def modify_pending_order_items(
        order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str, call: Call
    ) -> dict:
        """Replace items of a pending order by others of the same products. Possible once."""
        return await ask(call)

    @tool("keyed")
    async def modify_user_address(
        *, user_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str, call: Call
    ) -> dict:
        """Change a customer's own address."""
        return await ask(call)

    return (
        *(cancel_pending_order, modify_pending_order_address, modify_pending_order_payment),
        *(modify_pending_order_items, modify_user_address),
    )


def store(ask: Asking) -> tuple[Tool, ...]:
    """Tools that take goods back."""

    @tool("keyed")
    async def return_delivered_order_items(
        order_id: str, item_ids: list[str], payment_method_id: str, call: Call
    ) -> dict:
        """Take items of a delivered order back."""
        return await ask(call)

    @tool("keyed")
    async def exchange_delivered_order_items(
        order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str, call: Call
    ) -> dict:
        """Exchange items of a delivered order for others of the same products."""
        return await ask(call)

    return return_delivered_order_items, exchange_delivered_order_items


async def ask_shop(branch: int, call: Call) -> Any:
    """Forward a call and its key to the shop."""
    who = {"branch": branch, "key": call.key, "session": call.session, "turn": call.turn, "pid": os.getpid()}
    answer = await shop.ask(int(os.environ[SHOP]), {**who, "name": call.name, "arguments": dict(call.arguments)})
    if "refused" in answer:
        raise Refused(answer["refused"])
    return answer["done"]


TASKS = {task.id: task for task in tasks_of(Path(os.environ[DATA]))}
COUNTERS = {branch: counter(branch) for branch in {task.branch for task in TASKS.values()}}
WITNESS_FD = os.open(Path(os.environ[WITNESS]) / f"{os.getpid()}.ndjson", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)


async def answer(turn: Turn) -> None:
    """Serve a customer."""
    tools = COUNTERS[int(str(turn.metadata["branch"]))]
    witness(turn, "run")
    for number in count(1):
        reply = await turn.generate(partial(model, turn, number), tools=tools)
        if not reply.calls:
            return
        await turn.perform(reply)


async def model(turn: Turn, number: int, context: Context) -> AsyncGenerator[str | ToolCall | Usage, None]:
    """Say and ask for what comes next, word by word; `turn` and `number` are for the witness alone."""
    items: list[Any] = list(context.items)
    witness(turn, "ask", step=f"model#{number}", through=context.through, items=canonical(items).decode())
    line = next_line(items, TASKS)
    for word in re.findall(r"\S+\s*", line.text):
        yield word
        await asyncio.sleep(PACE_SECONDS)
    if line.action is not None:
        yield ToolCall(line.action.name, line.action.arguments)
    yield Usage({"output_tokens": len(line.text.split())})


def witness(turn: Turn, kind: str, **what: Any) -> None:
    """Write one line in one write: what a process that is killed has written stays written."""
    who = {"kind": kind, "session": turn.session, "turn": turn.id, "attempt": turn.attempt, "pid": os.getpid()}
    os.write(WITNESS_FD, msgspec.json.encode({**who, "at": time.time_ns() // 10**6, **what}) + b"\n")
