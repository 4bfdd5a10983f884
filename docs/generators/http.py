"""The reference of routes: the table of `http.routes`, and the shapes that it names."""

from typing import Any, get_args

import msgspec

from dalsegno.http.routes import ROUTES, Route
from dalsegno.wire import shapes
from dalsegno.wire.openapi import Answer
from generators.markdown import anchor, struct_section, table

OUT = ("Session", "Turn", "Action", "TurnError", "Receipt", "Event", "Problem", "Health", "Parent")
IN = ("NewSession", "Patch", "Fork", "Message", "Approval", "ToolResult", "Cancel")

HEAD = """\
# HTTP routes

Under `/v1`, JSON in and out. A request carries its API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`;
the key says which tenant speaks. Without any configured key everybody is tenant `default`.
Unknown fields and parameters are refused by name. The same table makes `/openapi.json`.
"""


def page() -> str:
    """The whole page."""
    overview = [
        (
            f"`{route.operation.method}`",
            f"[`{route.operation.path}`](#{anchor(route.operation.name)})",
            route.operation.says,
        )
        for route in ROUTES
    ]
    parts = [HEAD, table(("method", "path", "does"), overview), *map(_route, ROUTES)]
    parts += ["## Shapes\n", *(struct_section(getattr(shapes, name)) for name in (*OUT, *IN))]
    return "\n".join(parts)


def _route(route: Route) -> str:
    operation = route.operation
    parts = [f"## {operation.name}\n\n`{operation.method} {operation.path}`: {operation.says}.\n"]
    if operation.parameters:
        rows = [(f"`{each.name}`", each.place, each.says) for each in operation.parameters]
        parts.append(table(("parameter", "in", "says"), rows))
    if operation.body:
        bodies = ", ".join(f"`{media}` {_kind(kind)}".strip() for media, kind in operation.body.items())
        parts.append(f"Body: {bodies}.\n")
    rows = [
        (str(status), answer.says, _content(answer), _headers(answer)) for status, answer in operation.answers.items()
    ]
    parts.append(table(("status", "says", "body", "headers"), rows))
    if operation.errors:
        parts.append("Errors: " + ", ".join(f"`{code}`" for code in operation.errors) + ".\n")
    return "\n".join(parts)


def _content(answer: Answer) -> str:
    return ", ".join(f"`{media}` {_kind(kind)}".strip() for media, kind in answer.content.items())


def _headers(answer: Answer) -> str:
    return ", ".join(f"`{name}`: {says}" for name, says in answer.headers.items())


def _kind(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return f"[{kind.__name__}](#{anchor(kind.__name__)})" if kind.__name__ in (*OUT, *IN) else kind.__name__
    return " or ".join(
        _kind(each) for each in get_args(kind) if isinstance(each, type) and issubclass(each, msgspec.Struct)
    )
