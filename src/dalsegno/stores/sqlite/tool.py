"""The port `Transactions`: a tool's own transaction in the database of the log."""

from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

from dalsegno.ports import Ref, Transaction


def transaction(path: Path, ref: Ref, *, timeout: timedelta) -> AbstractAsyncContextManager[Transaction]:
    """Begin."""
    raise NotImplementedError
