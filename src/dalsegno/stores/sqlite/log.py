"""The port `Log` on a SQLite file, with `Fleet` and `Transactions` beside it."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from dalsegno.core.append import Decide, Decision
from dalsegno.core.claim import Claimed
from dalsegno.core.event import Event
from dalsegno.core.session import Session
from dalsegno.ports import Member, Page, Query, Ref, Transaction
from dalsegno.stores.sqlite import file
from dalsegno.stores.sqlite.rows import Rows
from dalsegno.stores.sqlite.writer import Writer

R = TypeVar("R")
CLAIMED_MAX = 256
