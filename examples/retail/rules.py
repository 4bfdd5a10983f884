"""What the shop's fifteen operations mean: books in, answer out, the books changed in place.

Written from the data and the policy of the retail domain. Knows no process, no key and no agent. An operation that is
`Refused` has changed nothing.
"""

import ast
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

Json = dict[str, Any]

REASONS = ("no longer needed", "ordered by mistake")
ARITHMETIC: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


class Refused(Exception):
    """The shop will not do that; nothing was changed."""


def act(books: Json, name: str, arguments: Json) -> Any:
    """Carry out one operation. Raises `Refused`.

    The books count how often each of their entries was changed, so that a change made twice shows, even where the
    second one leaves everything else as it was (an address).
    """
    answer = OPERATIONS[name](books, **arguments)
    if name in WRITES:
        changes, entry = books.setdefault("changes", {}), arguments.get("order_id") or arguments["user_id"]
        changes[entry] = changes.get(entry, 0) + 1
    return answer


# ------------------------------------------------------------------------------------------------ looking


def find_user_id_by_email(books: Json, email: str) -> str:
    return _only(user["user_id"] for user in books["users"].values() if user["email"].lower() == email.lower())


def find_user_id_by_name_zip(books: Json, first_name: str, last_name: str, zip: str) -> str:
    wanted = (first_name.lower(), last_name.lower(), zip)
    return _only(
        user["user_id"]
        for user in books["users"].values()
        if (user["name"]["first_name"].lower(), user["name"]["last_name"].lower(), user["address"]["zip"]) == wanted
    )


def get_user_details(books: Json, user_id: str) -> Json:
    return _get(books, "users", user_id)


def get_order_details(books: Json, order_id: str) -> Json:
    return _get(books, "orders", order_id)


def get_product_details(books: Json, product_id: str) -> Json:
    return _get(books, "products", product_id)


def get_item_details(books: Json, item_id: str) -> Json:
    return _variant(books, item_id)[1]


def calculate(books: Json, expression: str) -> str:
    try:
        return str(round(_value(ast.parse(expression, mode="eval").body), 2))
    except (SyntaxError, KeyError, ZeroDivisionError) as error:
        raise Refused(f"not arithmetic: {expression}") from error


# ------------------------------------------------------------------------------------------------ changing


def cancel_pending_order(books: Json, order_id: str, reason: str) -> Json:
    order = _order(books, order_id, "pending")
    if reason not in REASONS:
        raise Refused(f"{reason!r} is no reason to cancel")
    for paid in list(order["payment_history"]):
        _refund(books, order, paid["payment_method_id"], paid["amount"])
    order.update(status="cancelled", cancel_reason=reason)
    return order


def modify_pending_order_address(books: Json, order_id: str, **address: str) -> Json:
    order = _order(books, order_id, "pending", "pending (items modified)")
    order["address"] = address
    return order


def modify_pending_order_payment(books: Json, order_id: str, payment_method_id: str) -> Json:
    order = _order(books, order_id, "pending", "pending (items modified)")
    method = _method(books, order, payment_method_id)
    first = order["payment_history"][0]
    if len(order["payment_history"]) != 1 or first["payment_method_id"] == payment_method_id:
        raise Refused("the payment can be changed once, to another method")
    _check_balance(method, first["amount"])
    _charge(books, order, payment_method_id, first["amount"])
    _refund(books, order, first["payment_method_id"], first["amount"])
    return order


def modify_pending_order_items(
    books: Json, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
) -> Json:
    order = _order(books, order_id, "pending")
    method = _method(books, order, payment_method_id)
    swaps = _swaps(books, order, item_ids, new_item_ids)
    difference = _difference(swaps)
    _check_balance(method, difference)
    if difference > 0:
        _charge(books, order, payment_method_id, difference)
    elif difference < 0:
        _refund(books, order, payment_method_id, -difference)
    left = list(order["items"])
    for old, new in swaps:
        changed = next(item for item in left if item["item_id"] == old["item_id"])
        left = [item for item in left if item is not changed]
        changed.update(item_id=new["item_id"], price=new["price"], options=new["options"])
    order["status"] = "pending (items modified)"
    return order


def return_delivered_order_items(books: Json, order_id: str, item_ids: list[str], payment_method_id: str) -> Json:
    order = _order(books, order_id, "delivered")
    method = _method(books, order, payment_method_id)
    if method["source"] != "gift_card" and payment_method_id != order["payment_history"][0]["payment_method_id"]:
        raise Refused("a refund goes to the original payment method or to a gift card")
    _owned(order, item_ids)
    order.update(status="return requested", return_items=sorted(item_ids), return_payment_method_id=payment_method_id)
    return order


def exchange_delivered_order_items(
    books: Json, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
) -> Json:
    order = _order(books, order_id, "delivered")
    method = _method(books, order, payment_method_id)
    difference = _difference(_swaps(books, order, item_ids, new_item_ids))
    _check_balance(method, difference)
    order.update(
        status="exchange requested",
        exchange_items=sorted(item_ids),
        exchange_new_items=sorted(new_item_ids),
        exchange_payment_method_id=payment_method_id,
        exchange_price_difference=difference,
    )
    return order


def modify_user_address(books: Json, user_id: str, **address: str) -> Json:
    user = _get(books, "users", user_id)
    user["address"] = address
    return user


def transfer_to_human_agents(books: Json, summary: str) -> str:
    return "somebody will take over"


LOOKS: dict[str, Callable[..., Any]] = {
    look.__name__: look
    for look in (
        find_user_id_by_email,
        find_user_id_by_name_zip,
        get_user_details,
        get_order_details,
        get_product_details,
        get_item_details,
        calculate,
    )
}
WRITES: dict[str, Callable[..., Any]] = {
    write.__name__: write
    for write in (
        cancel_pending_order,
        modify_pending_order_address,
        modify_pending_order_payment,
        modify_pending_order_items,
        return_delivered_order_items,
        exchange_delivered_order_items,
        modify_user_address,
    )
}
OPERATIONS = {**LOOKS, **WRITES, "transfer_to_human_agents": transfer_to_human_agents}


# ------------------------------------------------------------------------------------------------ helping


def _only(found: Iterator[str]) -> str:
    user = next(found, None)
    if user is None:
        raise Refused("no such user")
    return user


def _get(books: Json, kind: str, name: str) -> Json:
    if name not in books[kind]:
        raise Refused(f"nothing in {kind} is named {name}")
    return books[kind][name]


def _order(books: Json, order_id: str, *states: str) -> Json:
    order = _get(books, "orders", order_id)
    if order["status"] not in states:
        raise Refused(f"order {order_id} is {order['status']}")
    return order


def _method(books: Json, order: Json, name: str) -> Json:
    methods = books["users"][order["user_id"]]["payment_methods"]
    if name not in methods:
        raise Refused(f"{order['user_id']} has no payment method {name}")
    return methods[name]


def _check_balance(method: Json, amount: float) -> None:
    if method["source"] == "gift_card" and method["balance"] < amount:
        raise Refused(f"{method['id']} holds {method['balance']}, {amount} is needed")


def _charge(books: Json, order: Json, name: str, amount: float) -> None:
    _book(books, order, "payment", name, amount)


def _refund(books: Json, order: Json, name: str, amount: float) -> None:
    _book(books, order, "refund", name, amount)


def _book(books: Json, order: Json, kind: str, name: str, amount: float) -> None:
    """Note the movement with the order; a gift card is moved at once."""
    order["payment_history"].append({"transaction_type": kind, "amount": amount, "payment_method_id": name})
    method = _method(books, order, name)
    if method["source"] == "gift_card":
        method["balance"] = round(method["balance"] + (amount if kind == "refund" else -amount), 2)


def _owned(order: Json, item_ids: list[str]) -> None:
    too_many = Counter(item_ids) - Counter(item["item_id"] for item in order["items"])
    if too_many or not item_ids:
        raise Refused(f"order {order['order_id']} does not hold {', '.join(too_many) or 'nothing'}")


def _swaps(books: Json, order: Json, item_ids: list[str], new_item_ids: list[str]) -> list[tuple[Json, Json]]:
    """Each item of the order with the variant that takes its place."""
    _owned(order, item_ids)
    if len(item_ids) != len(new_item_ids):
        raise Refused("each item is exchanged for one other")
    swaps = []
    for old_id, new_id in zip(item_ids, new_item_ids, strict=True):
        old = next(item for item in order["items"] if item["item_id"] == old_id)
        product, new = _variant(books, new_id)
        if product["product_id"] != old["product_id"] or not new["available"]:
            raise Refused(f"{new_id} is not available as another {old['name']}")
        swaps.append((old, new))
    return swaps


def _difference(swaps: list[tuple[Json, Json]]) -> float:
    return round(sum(new["price"] - old["price"] for old, new in swaps), 2)


def _variant(books: Json, item_id: str) -> tuple[Json, Json]:
    for product in books["products"].values():
        if item_id in product["variants"]:
            return product, product["variants"][item_id]
    raise Refused(f"no product has an item {item_id}")


def _value(node: ast.AST) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left=left, op=sign, right=right):
            return ARITHMETIC[type(sign)](_value(left), _value(right))
        case ast.UnaryOp(op=sign, operand=operand):
            return ARITHMETIC[type(sign)](_value(operand))
        case _:
            raise SyntaxError("neither a number nor arithmetic")
