"""What a turn is written to."""

from collections.abc import Callable

import msgspec

from dalsegno.ports import Log
from dalsegno.runtime.hub import Hub


class Tiers(msgspec.Struct, frozen=True):
    """What a turn is written to and announced on.

    `closing` says that this replica is going away; `doubt` is told that the answer to a commit was lost.
    """

    log: Log
    hub: Hub
    closing: Callable[[], bool]
    doubt: Callable[[], None]
