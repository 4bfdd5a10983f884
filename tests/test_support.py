"""The helpers that other tests lean on do what they say."""

import anyio.lowlevel
import pytest

from tests.support import wait_until


async def test_waiting_returns_the_first_true_value():
    """A predicate is asked until its answer is true, and that answer is handed back."""
    answers = iter([0, None, "", "there"])
    assert await wait_until(lambda: next(answers), description="an answer comes") == "there"


async def test_waiting_asks_async_predicates_too():
    """What has to be awaited (an HTTP request, a query) is a predicate like any other."""

    async def ready() -> bool:
        await anyio.lowlevel.checkpoint()
        return True

    assert await wait_until(ready, description="it is ready")


async def test_waiting_in_vain_fails_with_the_description():
    """A timeout names what was waited for and what was last seen, not a line of the helper."""
    with pytest.raises(pytest.fail.Exception, match=r"until pigs fly; the last value was \[\]"):
        await wait_until(lambda: [], description="pigs fly", timeout=0.02)


async def test_an_error_of_the_predicate_goes_through():
    """A predicate that breaks is a broken test, not a reason to wait on."""
    with pytest.raises(ZeroDivisionError):
        await wait_until(lambda: 1 / 0, description="never")
