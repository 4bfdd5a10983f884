"""What may be logged of an exception of a user's code: its type and its place. Its words may hold keys or payloads."""

import traceback


def blame(error: BaseException) -> str:
    """Such as `KeyError at /app/shop.py:17 in refund`."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{where}"
