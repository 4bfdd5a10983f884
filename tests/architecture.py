"""The floor plan, as failing tests: layers, purity, budgets and what may not be written. See CONTRIBUTING.md.

Every check is a function from a module to its violations. It is run over all of src/dalsegno, and once over a planted
violation, because a check that cannot fail checks nothing.
"""

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "dalsegno"

ROOMS = ("agents", "core", "http", "ops", "runtime", "stores", "testing", "wire")
FILE_LINES = {"core": 250, "stores": 400}
FILE_LINES_ELSEWHERE = 300
FUNCTION_LINES = {"core": 40}
FUNCTION_LINES_ELSEWHERE = 70
PARAMETERS = 6
PUBLIC_NAMES = 30

# Exceptions: file pattern -> why. A line here is a decision; take it out when it is no longer needed.
MAY_CATCH_EVERYTHING: dict[str, str] = {
    "http/app.py": "whatever a handler raises becomes a problem document with a reference, and a line in the log",
    "runtime/replica.py": "a turn that cannot be run ends, whatever the reason; it would be picked up again for ever",
    "runtime/turn.py": "whatever a user's agent raises ends its turn and nothing else",
    "runtime/blame.py": "an exception's own words are a user's code, and may raise whatever they like",
    "runtime/outcome.py": "whatever a user's tool raises is an answer to the model",
    "agents/langgraph/book.py": "whatever a write comes to is told to each of those who share it",
    "agents/langgraph/codec.py": "a value is taken apart by its own methods, and they may raise whatever they like",
    "agents/langgraph/threads.py": "whatever a function raises in a thread that was lent is told to who asked for it",
    "agents/langgraph/journal.py": "whatever a tool raises is recorded, and raised again each time",
    "agents/openai_agents/tools.py": "whatever a call raises is recorded, so that it ends the run each time",
    "agents/pydantic_ai/calls.py": "whatever a tool raises is recorded, and ends the run as it does without us",
    "stores/sqlite/committer.py": "whatever a decision raises belongs to the one who brought it",
}
MAY_IMPORT_INSIDE_FUNCTIONS = {
    "stores/__init__.py": "a driver and its client library are loaded when a URL asks for them",
    "agents/*.py": "an SDK is loaded when an agent of its kind is served",
    "ops/cli.py": "`--help` answers without loading a server",
    "ops/cli/*.py": "`--help` answers without loading a server",
}
MAY_READ_THE_ENVIRONMENT = {"ops/config.py": "configuration has one door"}

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
BROAD = {"Exception", "BaseException"}


@dataclass(frozen=True)
class Module:
    """One source file, named by its path inside the package (`runtime/turn.py`)."""

    name: str
    text: str

    @property
    def room(self) -> str:
        return self.name.split("/")[0] if "/" in self.name else ""

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.text)

    def functions(self) -> Iterator[tuple[Function, bool]]:
        """Every function, and whether others can call it: no underscore in its own name or around it."""
        yield from _functions(self.tree, public=True)

    def allowed(self, exceptions: dict[str, str]) -> bool:
        return any(fnmatch(self.name, pattern) for pattern in exceptions)


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def _functions(parent: ast.AST, *, public: bool) -> Iterator[tuple[Function, bool]]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, Function):
            seen = public and (not node.name.startswith("_") or node.name == "__init__")
            yield node, seen
            yield from _functions(node, public=False)
        else:
            inside = public and not (isinstance(node, ast.ClassDef) and node.name.startswith("_"))
            yield from _functions(node, public=inside)


def modules() -> list[Module]:
    return [
        Module(path.relative_to(PACKAGE).as_posix(), path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))
    ]


# ---------------------------------------------------------------------------- the checks


def begins_with_a_docstring(module: Module) -> Iterator[str]:
    """The first lines of a module say what lives here and what it must not know."""
    if not ast.get_docstring(module.tree):
        yield f"{module.name}:1 has no module docstring"


def files_are_short(module: Module) -> Iterator[str]:
    """A file that outgrows its budget holds two things; give the second a noun and a file of its own."""
    budget = FILE_LINES.get(module.room, FILE_LINES_ELSEWHERE)
    lines = len(module.text.splitlines())
    if lines > budget:
        yield f"{module.name} has {lines} lines; the budget is {budget}"


def functions_are_short(module: Module) -> Iterator[str]:
    """A function fits on a screen; split it where a comment would introduce the next part."""
    budget = FUNCTION_LINES.get(module.room, FUNCTION_LINES_ELSEWHERE)
    for function, _ in module.functions():
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > budget:
            yield f"{module.name}:{function.lineno} {function.name} has {lines} lines; the budget is {budget}"


def functions_take_few_parameters(module: Module) -> Iterator[str]:
    """Values that travel together are one value with a name."""
    for function, _ in module.functions():
        count = len(_parameters(function))
        if count > PARAMETERS and not _is_command(function):
            place = f"{module.name}:{function.lineno} {function.name}"
            yield f"{place} takes {count} parameters; the budget is {PARAMETERS}"


def public_signatures_take_no_booleans(module: Module) -> Iterator[str]:
    """`f(x, True)` says nothing where it is called: make two functions, or name the choice (a Literal, an enum)."""
    for function, public in module.functions():
        if not public or _is_command(function):
            continue
        for parameter in _parameters(function):
            if parameter.annotation is not None and _admits_bool(parameter.annotation):
                yield f"{module.name}:{parameter.lineno} {function.name}({parameter.arg}: bool) is public"


def only_listed_files_catch_everything(module: Module) -> Iterator[str]:
    """Name the error, or raise it again; a handler for everything hides the one nobody thought of."""
    if module.allowed(MAY_CATCH_EVERYTHING):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            raised_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if not raised_again and (node.type is None or _names(node.type) & BROAD):
                yield f"{module.name}:{node.lineno} catches every exception and keeps it"
        elif isinstance(node, ast.Call) and _names(node.func) == {"suppress"} and _all_names(node.args) & BROAD:
            yield f"{module.name}:{node.lineno} suppresses every exception"


def imports_stand_at_the_top(module: Module) -> Iterator[str]:
    """An import inside a function hides a cycle, and its cost from whoever starts the process."""
    if module.allowed(MAY_IMPORT_INSIDE_FUNCTIONS):
        return
    for function, _ in module.functions():
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield f"{module.name}:{node.lineno} imports inside {function.name}"


def only_config_reads_the_environment(module: Module) -> Iterator[str]:
    """Everybody else takes what they need as an argument; then `serve --help` can list every setting."""
    if module.allowed(MAY_READ_THE_ENVIRONMENT):
        return
    readers = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in readers:
                yield f"{module.name}:{node.lineno} reads the environment (os.{name})"
            case ast.ImportFrom(module="os", names=names) if readers & {alias.name for alias in names}:
                yield f"{module.name}:{node.lineno} reads the environment"


def core_silences_no_type_error(module: Module) -> Iterator[str]:
    """Decisions are plain values; if the type checker does not believe one, neither should the reader."""
    if module.room == "core":
        for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
            if token.type == tokenize.COMMENT and token.string.removeprefix("#").strip().startswith("type: ignore"):
                yield f"{module.name}:{token.start[0]} silences the type checker"


def the_front_door_is_small(module: Module) -> Iterator[str]:
    """The package exports what a user needs on the first day; the rest is found in its room."""
    if module.name != "__init__.py":
        return
    for node in ast.walk(module.tree):
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=names) | ast.Tuple(elts=names)):
                if len(names) > PUBLIC_NAMES or any(isinstance(name, ast.Starred) for name in names):
                    yield f"{module.name}:{node.lineno} __all__ has {len(names)} names; the budget is {PUBLIC_NAMES}"
            case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.AnnAssign(target=ast.Name(id="__all__")):
                yield f"{module.name}:{node.lineno} __all__ is not a plain list of names"
            case ast.AugAssign(target=ast.Name(id="__all__")):
                yield f"{module.name}:{node.lineno} __all__ grows after it was written"
            case _:
                pass


def stores_stand_in_the_contract(module: Module) -> Iterator[str]:
    """Every module of stores/ is a driver, or something that drivers share: say which in `.importlinter`."""
    parts = module.name.removesuffix(".py").split("/")
    if module.room != "stores" or parts[1] == "__init__":
        return
    if f"(dalsegno.stores.{parts[1]})" not in (ROOT / ".importlinter").read_text("utf-8"):
        yield f"{module.name} is in no row of [importlinter:contract:drivers]"


# ---------------------------------------------------------------------------- what the checks look at


def _parameters(function: Function) -> list[ast.arg]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument for argument in named if argument.arg not in ("self", "cls")]


def _is_command(function: Function) -> bool:
    """Whether click calls it: then its parameters are the options of the documented command line, flags included."""
    called = [d.func if isinstance(d, ast.Call) else d for d in function.decorator_list]
    return any(_names(decorator) & {"command", "group"} for decorator in called)


def _names(node: ast.expr) -> set[str]:
    """The last names of an expression: `Exception`, `builtins.Exception` or `(OSError, Exception)`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return {name}
        case ast.Tuple(elts=elements):
            return _all_names(elements)
        case _:
            return set()


def _all_names(nodes: list[ast.expr]) -> set[str]:
    return {name for node in nodes for name in _names(node)}


def _admits_bool(annotation: ast.expr) -> bool:
    """Whether a boolean may be passed: `bool`, `bool | None`, `Optional[bool]`, `Annotated[bool, ...]`, or quoted."""
    match annotation:
        case ast.Name(id="bool"):
            return True
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _admits_bool(left) or _admits_bool(right)
        case ast.Subscript(value=generic, slice=arguments) if _names(generic) & {"Optional", "Union", "Annotated"}:
            inner = arguments.elts if isinstance(arguments, ast.Tuple) else [arguments]
            return any(map(_admits_bool, inner))
        case ast.Constant(value=str(quoted)):
            return _admits_bool(ast.parse(quoted, mode="eval").body)
        case _:
            return False


# ---------------------------------------------------------------------------- the tests

Check: TypeAlias = Callable[[Module], Iterator[str]]

LONG = "x = 1\n"
PLANTED: dict[Check, list[tuple[str, str]]] = {
    begins_with_a_docstring: [("core/turn.py", "import json\n")],
    files_are_short: [("core/turn.py", LONG * 251), ("http/app.py", LONG * 301), ("stores/s3.py", LONG * 401)],
    functions_are_short: [
        ("core/turn.py", "def f():\n" + f"    {LONG}" * 40),
        ("runtime/hub.py", "class A:\n    async def f(self):\n" + f"        {LONG}" * 70),
    ],
    functions_take_few_parameters: [("ops/build.py", "def f(a, b, /, c, d, *, e, f, g): ...")],
    public_signatures_take_no_booleans: [
        ("http/app.py", "def f(*, force: bool = False): ..."),
        ("http/app.py", "class A:\n    def __init__(self, force: 'bool | None'): ..."),
    ],
    only_listed_files_catch_everything: [
        ("runtime/hub.py", "try:\n    f()\nexcept Exception as e:\n    raise X from e"),
        ("runtime/hub.py", "try:\n    f()\nexcept (OSError, BaseException):\n    pass"),
        ("runtime/hub.py", "try:\n    f()\nexcept:\n    pass"),
        ("runtime/hub.py", "with contextlib.suppress(Exception):\n    f()"),
    ],
    imports_stand_at_the_top: [("runtime/hub.py", "async def f():\n    if x:\n        from a import b")],
    only_config_reads_the_environment: [
        ("ops/cli.py", "import os\nx = os.environ['HOME']"),
        ("stores/s3.py", "from os import getenv"),
    ],
    core_silences_no_type_error: [("core/turn.py", "x: int = ''  # type: ignore[assignment]\n")],
    the_front_door_is_small: [
        ("__init__.py", f"__all__ = {[f'n{i}' for i in range(31)]}"),
        ("__init__.py", "__all__ = [*core.__all__]"),
        ("__init__.py", "__all__ = core.__all__"),
        ("__init__.py", "__all__ += ['more']"),
    ],
    stores_stand_in_the_contract: [("stores/cassandra.py", "")],
}


@pytest.mark.parametrize("check", PLANTED, ids=lambda check: check.__name__)
def test_the_source_keeps_its_budget(check: Check):
    """Every module keeps every budget and ban; the failure lists each place and says what to do about it."""
    violations = [line for module in modules() for line in check(module)]
    assert not violations, "\n  ".join([f"{check.__doc__}", *violations])


@pytest.mark.parametrize(
    ("check", "name", "text"),
    [(check, *planted) for check, plants in PLANTED.items() for planted in plants],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_violation_is_found(check: Check, name: str, text: str):
    """A check that cannot fail checks nothing."""
    assert list(check(Module(name, text)))


INNOCENT = '''"""Says what lives here."""

import contextlib

@cli.command()
def serve(a, b, c, d, e, f, g, insecure: bool): ...

def keeps(self, a, b, c, d, e, *, check: Callable[[int], bool]) -> bool:
    with contextlib.suppress(TimeoutError):
        f()
    try:
        f()
    except BaseException:
        undo()
        raise

def _private(force: bool): ...
'''


@pytest.mark.parametrize("check", PLANTED, ids=lambda check: check.__name__)
def test_an_innocent_module_is_left_alone(check: Check):
    """What the rules mean to allow is allowed: click's flags, private booleans, catching in order to raise again."""
    assert not list(check(Module("ops/cli.py", INNOCENT)))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_there(room: str):
    """A skip here says that the checks had nothing to look at in a room that does not exist yet."""
    if not any((PACKAGE / room).rglob("*.py")):
        pytest.skip(f"src/dalsegno/{room} does not exist yet")
    assert (PACKAGE / room / "__init__.py").is_file(), (
        f"src/dalsegno/{room} needs an __init__.py: import-linter skips it"
    )


def test_exceptions_are_still_needed():
    """An exception that no file needs any more is taken off its list."""
    names = [module.name for module in modules()]
    gone = [pattern for pattern in MAY_CATCH_EVERYTHING if not any(fnmatch(name, pattern) for name in names)]
    assert not gone, f"MAY_CATCH_EVERYTHING lists files that do not exist: {gone}"


def test_import_contracts_are_kept():
    """Layers, purity, independent drivers, no cycles: `.importlinter` is the floor plan."""
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    done = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"
