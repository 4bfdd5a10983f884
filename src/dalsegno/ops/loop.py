"""Which event loop: uvloop where it is installed, asyncio's own elsewhere."""

import asyncio
import importlib
import importlib.util
from collections.abc import Callable

FAST = "uvloop"


def factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes loops here."""
    found: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    return importlib.import_module(FAST).new_event_loop if importlib.util.find_spec(FAST) else found


def described() -> str:
    """The loop's name, for people."""
    if importlib.util.find_spec(FAST) is None:
        return "asyncio (uvloop is faster: pip install 'dalsegno[fast]')"
    return f"uvloop {importlib.import_module(FAST).__version__}"
