"""Markdown from types and rows. Knows how things are spelled, nothing of what they mean."""

import inspect
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Union

import msgspec

PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", bytes: "bytes"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; `|` and line breaks in cells are taken care of."""
    lines = [_row(head), "|" + "---|" * len(head), *(_row(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def paragraph(text: str | None) -> str:
    """A docstring as prose: its paragraphs, each on lines of its own."""
    return inspect.cleandoc(text or "").strip() + "\n"


def anchor(name: str) -> str:
    """The anchor that a heading gets."""
    return "".join(char for char in name.lower().replace(" ", "-") if char.isalnum() or char in "-_")


def type_text(kind: Any) -> str:
    """A type as JSON's words say it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{_quoted(value)}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_text(each) for each in arguments if each is not msgspec.UnsetType))
    if origin in (tuple, list):
        return f"list of {type_text(arguments[0])}"
    if origin is dict:
        return "object"
    return PLAIN.get(kind, getattr(kind, "__name__", "any"))


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def fields(struct: type[msgspec.Struct]) -> str:
    """A struct's fields as a table."""
    kinds = typing.get_type_hints(struct, include_extras=True)
    rows = [
        (f"`{field.encode_name}`", type_text(kinds[field.name]), _default(field))
        for field in msgspec.structs.fields(struct)
    ]
    return table(("field", "type", "if left out"), rows) if rows else "No fields.\n"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "is never left out"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is msgspec.UNSET:
        return "not given"
    return f"`{msgspec.json.encode(value).decode()}`"


def struct_section(struct: type[msgspec.Struct], *, name: str = "", level: int = 3) -> str:
    """A heading, the docstring, the fields."""
    return f"{'#' * level} {name or struct.__name__}\n\n{paragraph(struct.__doc__)}\n{fields(struct)}\n"
