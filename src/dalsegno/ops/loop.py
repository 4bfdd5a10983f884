"""Which event loop: uvloop where it is installed, asyncio's own elsewhere; and what the interpreter does beside it."""

import asyncio
import gc
import importlib
import importlib.util
import sys
from collections.abc import Callable

FAST = "uvloop"
SWITCH_SECONDS = 0.0005
"""How long a busy loop may keep the interpreter from the threads that beat and sync: a tenth of Python's default."""
COLLECT_AFTER = 20_000
"""So many more objects than before are looked through for cycles, and not 700: a turn makes thousands and no cycle, and
a tenth of its time went there.
"""


def factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes loops here."""
    found: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    return importlib.import_module(FAST).new_event_loop if importlib.util.find_spec(FAST) else found


def described() -> str:
    """The loop's name, for people."""
    if importlib.util.find_spec(FAST) is None:
        return "asyncio (uvloop is faster: pip install 'dalsegno[fast]')"
    return f"uvloop {importlib.import_module(FAST).__version__}"


def steady() -> None:
    """What is alive now stays alive: later collections need not look at it. To be called once, before work begins."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
