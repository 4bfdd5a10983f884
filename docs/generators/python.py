"""The reference of the Python API: public names with their docstrings, and signatures as their authors wrote them."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import dalsegno
from dalsegno import client
from dalsegno.agents import providers
from dalsegno.runtime import job, once, store
from dalsegno.testing import model
from generators.markdown import paragraph

HEAD = """\
# Python API

What an agent's author uses is in `dalsegno`; what a client uses is in `dalsegno.client`,
which needs `pip install 'dalsegno[client]'` and knows the HTTP contract only.

## In `dalsegno`
"""
CLIENT_NAMES = (
    "Client",
    "Sessions",
    "SessionHandle",
    "Retry",
    "Receipt",
    "Event",
    "Transcript",
    "ClientError",
    "ApiError",
    "Unreachable",
    "ContractBroken",
    "TurnNotCompleted",
)
PROVIDER_NAMES = ("for_responses", "for_chat", "for_anthropic")
MODEL_NAMES = ("ModelServer", "Shown", "Message", "Asked", "Answer", "Pace")
MODEL_NAMES += ("by_words", "by_round", "by_turn", "at_pace", "To", "Hold", "Fail", "Die", "Garble", "Log", "Entry")
STORE_NAMES = ((store, "Store"), (store, "Loaded"), (store, "Records"), (store, "Record"), (job, "Job"), (once, "Once"))
NOT_MADE_BY_USERS = {"Agent", "Turn", "Reply", "Call", "Transaction", "Sessions", "SessionHandle", "Receipt", "Event"}
NOT_MADE_BY_USERS |= {"Hold", "Log", "Store", "Loaded", "Records", "Record", "Job", "Once"}


def page() -> str:
    """The whole page."""
    parts = [HEAD, *(_section(dalsegno, name) for name in dalsegno.__all__ if not name.startswith("_"))]
    parts += ["## What `open_store` gives\n", *(_section(module, name) for module, name in STORE_NAMES)]
    parts += ["## In `dalsegno.client`\n", *(_section(client, name) for name in CLIENT_NAMES)]
    parts += ["## In `dalsegno.agents.providers`\n", *(_section(providers, name) for name in PROVIDER_NAMES)]
    parts += ["## In `dalsegno.testing.model`\n", *(_section(model, name) for name in MODEL_NAMES)]
    return "\n".join(parts)


def _section(module: ModuleType, name: str) -> str:
    found = getattr(module, name)
    heading = f"### {name}\n\n"
    if inspect.isclass(found):
        return heading + "\n".join(_class(found, name))
    if inspect.isroutine(found):
        return heading + _code(_signature(found)) + "\n" + paragraph(found.__doc__)
    parts = ("None" if part is type(None) else part.__name__ for part in found.__args__)
    return heading + f"`{' | '.join(parts)}`\n"


def _class(kind: type, name: str) -> Iterator[str]:
    tree = _tree(kind)
    if name not in NOT_MADE_BY_USERS and (made := _fields(tree) or _made(tree)):
        yield _code(made)
    yield paragraph(ast.get_docstring(tree))
    if name in NOT_MADE_BY_USERS and (attributes := _fields(tree)):
        yield _code(attributes)
    if name == "Turn" and (attributes := _set_in_init(tree)):
        yield f"Its attributes: {attributes}.\n"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            kept = [decorator for decorator in node.decorator_list if isinstance(decorator, ast.Name)]
            text = "".join(f"@{ast.unparse(decorator)}\n" for decorator in kept) + _head(node)
            yield _code(text) + "\n" + paragraph(ast.get_docstring(node))


def _tree(found: Any) -> Any:
    return ast.parse(textwrap.dedent(inspect.getsource(found))).body[0]


def _fields(tree: ast.ClassDef) -> str:
    return "\n".join(ast.unparse(node) for node in tree.body if isinstance(node, ast.AnnAssign))


def _set_in_init(tree: ast.ClassDef) -> str:
    """The public names that `__init__` gives an object."""
    made = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    targets = [node.targets[0] for node in made.body if isinstance(node, ast.Assign)]
    names = [target.attr for target in targets if isinstance(target, ast.Attribute) and not target.attr.startswith("_")]
    return ", ".join(f"`{name}`" for name in names)


def _made(tree: ast.ClassDef) -> str:
    made = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    return _head(made[0]).replace("def __init__", tree.name).removesuffix(" -> None") if made else ""


def _signature(found: Any) -> str:
    return _head(_tree(found))


def _head(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    line = f"{word} {node.name}({arguments}){result}"
    if len(line) <= 100:
        return line
    return f"{word} {node.name}(\n" + textwrap.indent(arguments.replace(", *, ", ",\n*, "), "    ") + f"\n){result}"


def _code(text: str) -> str:
    return f"```text\n{text}\n```\n"
