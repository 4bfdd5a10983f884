"""A provider as strict as any: would it take this context as its input? Knows items and nothing of how they came
about.
"""

from collections.abc import Sequence

from dalsegno.core.json import JsonObject


def refused_by_providers(items: Sequence[JsonObject]) -> str | None:
    """Why a provider would refuse these items as input, or None.

    Each call has exactly one result, none comes without its call, calls that are side by side are answered before
    anything else comes, and no item has the id of another.
    """
    waiting: set[object] = set()
    known: set[object] = set()
    ids: set[object] = set()
    answering = False
    for place, item in enumerate(items):
        kind, call_id = item["type"], item.get("call_id")
        if item["id"] in ids:
            return f"item {place} repeats the id {item['id']}"
        ids.add(item["id"])
        if kind == "function_call_output":
            if call_id not in waiting:
                return f"item {place} answers {call_id}, which nobody asked for or which has its answer"
            waiting.discard(call_id)
            answering = bool(waiting)
        elif kind == "function_call":
            if call_id in known:
                return f"item {place} asks for {call_id} again"
            if answering:
                return f"item {place} asks for {call_id} while others are being answered"
            known.add(call_id)
            waiting.add(call_id)
        elif waiting:
            return f"item {place} ({kind}) comes while {sorted(map(str, waiting))} wait"
        elif str(kind).startswith("dalsegno:"):
            return f"item {place} is {kind}, which no provider knows"
    return f"no result of {sorted(map(str, waiting))}" if waiting else None
