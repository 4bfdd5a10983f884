"""The fifteen tools of the retail agent, each with what it means to do it twice. No framework in here.

Looking something up may be repeated: `read`. What changes the shop's books is `keyed`: the call's key goes to the shop
with it, so that a call which is sent again, because a replica died before it had the answer, changes nothing. Handing
a customer over to a human is `once`: nobody's phone may ring twice, and nobody there knows of keys.
"""

import json
import os
from pathlib import Path
from typing import Literal

import httpx2

from dalsegno import current_call, tool

POLICY = (Path(__file__).parent / "data" / "policy.md").read_text("utf-8").strip()
SHOP = httpx2.AsyncClient(base_url=os.environ.get("SHOP_URL", "http://127.0.0.1:8100"), timeout=30)


async def ask_shop() -> str:
    """Forward the call that is being carried out, with its key. What it came to is text, a refusal too, which every
    framework shows to its model just as it is. The other headers are for the shop's journal.
    """
    call = current_call()
    who = {"Session": call.session, "Turn": call.turn, "User-Agent": f"retail-agent/{os.getpid()}"}
    answer = await SHOP.post(f"/operations/{call.name}", json=call.arguments, headers={**call.headers, **who})
    if answer.status_code == 409:
        return f"Refused: {answer.json()['refused']}"
    done = answer.raise_for_status().json()["done"]
    return done if isinstance(done, str) else json.dumps(done, ensure_ascii=False, separators=(",", ":"))


# ------------------------------------------------------------------------------------------------ looking


@tool("read")
async def find_user_id_by_email(email: str) -> str:
    """Find a customer's user id by their email address."""
    return await ask_shop()


@tool("read")
async def find_user_id_by_name_zip(first_name: str, last_name: str, zip: str) -> str:
    """Find a customer's user id by their first name, last name and zip code."""
    return await ask_shop()


@tool("read")
async def get_user_details(user_id: str) -> str:
    """A customer's profile, payment methods and order ids."""
    return await ask_shop()


@tool("read")
async def get_order_details(order_id: str) -> str:
    """An order: its status, what is in it, what was paid, where it is. Order ids begin with '#'."""
    return await ask_shop()


@tool("read")
async def get_product_details(product_id: str) -> str:
    """A product and all its variants. A product id is not an item id."""
    return await ask_shop()


@tool("read")
async def get_item_details(item_id: str) -> str:
    """One variant of a product: its options, its price, whether it is available."""
    return await ask_shop()


@tool("read")
async def calculate(expression: str) -> str:
    """Do a sum with numbers, + - * / and parentheses, such as '(12.50 - 3) * 2'."""
    return await ask_shop()


# ------------------------------------------------------------------------------------------------ changing


@tool("keyed")
async def cancel_pending_order(order_id: str, reason: Literal["no longer needed", "ordered by mistake"]) -> str:
    """Cancel a pending order and refund it. Only after the customer has confirmed it."""
    return await ask_shop()


@tool("keyed")
async def modify_pending_order_address(
    order_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
) -> str:
    """Send a pending order to another address. Only after the customer has confirmed it."""
    return await ask_shop()


@tool("keyed")
async def modify_pending_order_payment(order_id: str, payment_method_id: str) -> str:
    """Pay a pending order with another payment method. Only after the customer has confirmed it."""
    return await ask_shop()


@tool("keyed")
async def modify_pending_order_items(
    order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
) -> str:
    """Replace items of a pending order by others of the same products, each by the new one at the same place of the
    list. Possible once an order, so collect all items first; only after the customer has confirmed it.
    """
    return await ask_shop()


@tool("keyed")
async def return_delivered_order_items(order_id: str, item_ids: list[str], payment_method_id: str) -> str:
    """Take items of a delivered order back and refund them. Only after the customer has confirmed it."""
    return await ask_shop()


@tool("keyed")
async def exchange_delivered_order_items(
    order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
) -> str:
    """Exchange items of a delivered order for others of the same products, each for the new one at the same place of
    the list. Possible once an order, so collect all items first; only after the customer has confirmed it.
    """
    return await ask_shop()


@tool("keyed")
async def modify_user_address(
    user_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
) -> str:
    """Change a customer's own address. Only after the customer has confirmed it."""
    return await ask_shop()


# ------------------------------------------------------------------------------------------------ handing over


@tool("once")
async def transfer_to_human_agents(summary: str) -> str:
    """Hand the customer over to a human, with a summary of what they want, if nothing else can help them."""
    return await ask_shop()


TOOLS = (
    *(find_user_id_by_email, find_user_id_by_name_zip, get_user_details, get_order_details),
    *(get_product_details, get_item_details, calculate),
    *(cancel_pending_order, modify_pending_order_address, modify_pending_order_payment, modify_pending_order_items),
    *(return_delivered_order_items, exchange_delivered_order_items, modify_user_address),
    transfer_to_human_agents,
)
