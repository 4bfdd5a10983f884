"""Help for tests of any room. Knows nothing of Dalsegno."""

import inspect
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

FIRST_PAUSE_SECONDS = 0.001
LONGEST_PAUSE_SECONDS = 0.02
PAUSE_GROWTH = 1.25


async def wait_until(predicate: Callable[[], Any], *, description: str, timeout: float = 10.0) -> Any:
    """Poll `predicate` (sync or async) until it is true, and return what it returned.

    Tests wait for a described condition and never for a time. After `timeout` seconds the test fails with the
    description and the last value seen. An error that the predicate raises goes through: it is not "not yet".
    """
    __tracebackhide__ = True
    started = time.monotonic()
    pause = FIRST_PAUSE_SECONDS
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() - started > timeout:
            pytest.fail(f"waited {timeout:g} s until {description}; the last value was {value!r}")
        await anyio.sleep(pause)
        pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
