"""What may be said of an exception of a user's code. In logs: its type and its place, since its words may hold keys or
payloads. To the turn's own client: its words, too, as far as it has any.
"""

import traceback

from dalsegno.core.event import TurnError
from dalsegno.core.json import clean_text
from dalsegno.errors import Unreadable

ERROR_CHARS = 2000


def blame(error: BaseException) -> str:
    """Such as `KeyError at /app/shop.py:17 in refund`."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{where}"


def told(error: Exception) -> TurnError:
    """The error of the turn that it ended."""
    code = getattr(error, "code", None)
    name = code if isinstance(code, str) else type(error).__name__
    return TurnError(clean_text(name), clean_text(words(error)[:ERROR_CHARS]))


def unrunnable(error: Exception) -> TurnError:
    """The error of a turn that it made impossible to run."""
    code = "unreadable" if isinstance(error, Unreadable) else "internal"
    return TurnError(code, clean_text(f"{type(error).__name__}: {words(error)}"[:ERROR_CHARS]))


def words(error: BaseException) -> str:
    """What it says. An exception that cannot be shown says nothing."""
    try:
        return str(error)
    except Exception:  # its `__str__` is a user's code, too
        return "(its words cannot be shown)"
