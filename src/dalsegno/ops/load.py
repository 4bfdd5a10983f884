"""TARGET → an agent: finds the module or file, takes the object, recognises what it is. Every error says what to do.

An error in the module itself, while it is imported, is not caught: its traceback is what its author needs.
"""

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from dalsegno.agents.plain import FunctionAgent
from dalsegno.errors import ConfigError
from dalsegno.ports import Agent, Tool

SHAPE = "write it as `module:attr` or `file.py:attr`, for example agent.py:answer"
SUPPORTED = (
    "an agent is a plain `async def answer(turn)`, a Pydantic AI agent, an OpenAI Agents SDK agent or a LangGraph graph"
)


class Adapter(NamedTuple):
    """How the agents of an SDK are known, and who serves them: `module.adapt(found, name=...)` gives an `Agent`.

    `has` is what the package itself has, if it is the SDK: others may have a package of that name. `agents` are the
    classes that are suggested.
    """

    package: str
    what: str
    module: str
    extra: str
    has: str
    agents: frozenset[str]


ADAPTERS = (
    Adapter(
        "pydantic_ai",
        "a Pydantic AI agent",
        "dalsegno.agents.pydantic_ai",
        "agent",
        has="Agent",
        agents=frozenset({"AbstractAgent", "PydanticAgent"}),
    ),
    Adapter(
        "agents",
        "an OpenAI Agents SDK agent",
        "dalsegno.agents.openai_agents",
        "openai-agents",
        has="Runner",
        agents=frozenset({"Agent", "OpenAIAgent"}),
    ),
    Adapter(
        "langgraph",
        "a LangGraph graph",
        "dalsegno.agents.langgraph",
        "langgraph",
        has="__path__",
        agents=frozenset({"Pregel", "LangGraphAgent"}),
    ),
)
ANSWER = "answer"


def load(target: str, *, name: str = "default", folder: Path | None = None) -> Agent:
    """The agent that `target` names, under the name that sessions ask for it by; `folder` is where to look (cwd).

    Raises `ConfigError` that says what is missing and what there is instead.
    """
    folder = Path.cwd() if folder is None else folder
    place, colon, attribute = target.rpartition(":")
    if not colon or not place or not attribute:
        raise ConfigError(f"TARGET {target!r} names no function: {SHAPE}{_offer(target, folder)}")
    module = _from_file(place, folder) if _is_file(place) else _from_module(place, folder)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{place} has no {attribute!r}{_alternatives(attribute, agents_in(module))}")
        found = getattr(found, part)
    return recognise(found, target=target, name=name)


def recognise(found: Any, *, target: str, name: str) -> Agent:
    """The adapter for what was found. Raises `ConfigError` for everything that no adapter knows."""
    if isinstance(found, FunctionAgent):
        return found
    for adapter in ADAPTERS:
        if not inspect.isclass(found) and _is_of(found, adapter):
            return _adapt(found, adapter, target=target, name=name)
    if _is_tool(found):
        raise ConfigError(f"{target} is a tool: name the agent that has it; {SUPPORTED}")
    # Of an object that can be called, its class knows whether calling it makes a coroutine.
    called = None if inspect.isclass(found) else inspect.getattr_static(type(found), "__call__", None)
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(called):
        _check_parameters(found, target)
        return FunctionAgent(found, name=name)
    raise ConfigError(_why_not(found, target))


def _is_of(found: Any, adapter: Adapter) -> bool:
    """Whether it is an object of that SDK, of a class derived from one of its classes, or an adapter's own wrapper."""
    package = sys.modules.get(adapter.package)
    theirs = package is None or hasattr(package, adapter.has)
    known = (f"{adapter.package}.", f"{adapter.module}.") if theirs else (f"{adapter.module}.",)
    return any(f"{kind.__module__}.".startswith(known) for kind in type(found).__mro__)


def _adapt(found: Any, adapter: Adapter, *, target: str, name: str) -> Agent:
    try:
        module = importlib.import_module(adapter.module)
    except ModuleNotFoundError as error:
        install = f"pip install 'dalsegno[{adapter.extra}]'"
        raise ConfigError(f"{target} is {adapter.what}, and {error.name!r} is not installed here: {install}") from error
    try:
        served: Agent = module.adapt(found, name=name)
    except TypeError as error:
        raise ConfigError(f"{target}: {error}") from error
    return served


def agents_in(module: ModuleType) -> Sequence[str]:
    """The names in a module that could be agents: functions that were written there, and objects of the SDKs."""
    return sorted(name for name, value in vars(module).items() if not name.startswith("_") and _may_be(value, module))


def _may_be(value: Any, module: ModuleType) -> bool:
    if inspect.iscoroutinefunction(value):
        return value.__module__ == module.__name__ and not _is_tool(value)
    kinds = {kind.__name__ for kind in type(value).__mro__}
    return any(not adapter.agents.isdisjoint(kinds) and _is_of(value, adapter) for adapter in ADAPTERS)


def _is_tool(found: Any) -> bool:
    return isinstance(getattr(found, "tool", None), Tool)


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _from_file(place: str, folder: Path) -> ModuleType:
    path = (folder / place).resolve()
    if not path.is_file():
        near = difflib.get_close_matches(path.stem, _python_files(path.parent), n=1, cutoff=0.6)
        looked = "" if str(path) == place else f" (looked for {path})"
        hint = f": did you mean {path.with_name(near[0])}.py?" if near else looked
        raise ConfigError(f"there is no file {place}{hint}")
    _first_on_path(path.parent)
    _first_on_path(folder)
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else f"dalsegno_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{place} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    with _explained(place):
        _execute(module, spec.loader)
    return module


@contextlib.contextmanager
def _explained(place: str) -> Iterator[None]:
    """While the module is imported: what the operator can mend without its traceback is a `ConfigError`."""
    try:
        yield
    except SyntaxError as error:
        where = f"{error.filename}:{error.lineno}" if error.lineno else place
        raise ConfigError(f"{where}: {error.msg}") from error
    except ModuleNotFoundError as error:
        raise ConfigError(f"{place} imports {error.name!r}, which is not installed here") from error
    except ImportError as error:
        raise ConfigError(f"{place}: {error}") from error
    except SystemExit as error:
        raise ConfigError(
            f"{place} ends the process while it is imported: put that under `if __name__ == '__main__':`"
        ) from error


def _execute(module: ModuleType, loader: Loader) -> None:
    sys.modules[module.__name__] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[module.__name__]
        raise


def _from_module(place: str, folder: Path) -> ModuleType:
    _first_on_path(folder)
    if not all(place.split(".")):
        raise ConfigError(f"{place!r} is no module's name: {SHAPE}")
    with _explained(place):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                raise
            hint = _alternatives(place, _python_files(folder))
            raise ConfigError(f"there is no module {place!r} in {folder} or installed{hint}") from error


def _check_parameters(function: Any, target: str) -> None:
    try:
        inspect.signature(function).bind(object())
    except TypeError as error:
        raise ConfigError(f"{target} is called with the turn and nothing else: {error}") from None


def _why_not(found: Any, target: str) -> str:
    if inspect.isasyncgenfunction(found):
        return f"{target} yields: an agent says things with `await turn.say(...)` or `turn.generate(...)`; {SUPPORTED}"
    if inspect.isfunction(found) or inspect.ismethod(found):
        made = "; if it makes an agent, name what it makes: `agent = make()`"
        return f"{target} is not async: write `async def {found.__name__}(turn)`{made}"
    what = f"the class {found.__name__}" if inspect.isclass(found) else f"{type(found).__name__} value"
    return f"{target} is {'' if inspect.isclass(found) else 'a '}{what} and no agent: {SUPPORTED}"


def _offer(target: str, folder: Path) -> str:
    """For a TARGET without a colon: the whole of it may be a file or module, so say how it would be written."""
    if (folder / target).is_file() or (folder / f"{target}.py").is_file():
        return f"; perhaps {target}:{ANSWER}"
    return ""


def _alternatives(wanted: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    if near:
        return f": did you mean {near[0]!r}?"
    return f"; there is {', '.join(names[:8])}" if names else ""


def _python_files(folder: Path) -> list[str]:
    """The names of its Python files, without what they all end in."""
    return sorted(path.stem for path in folder.glob("*.py")) if folder.is_dir() else []


def _first_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
