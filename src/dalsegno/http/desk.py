"""What every handler works with, in one value."""

from collections.abc import Callable
from dataclasses import dataclass

from dalsegno.http.auth import Keys
from dalsegno.http.gate import Gate
from dalsegno.http.metrics import Metrics
from dalsegno.http.needs import Service
from dalsegno.wire.native import Frames


@dataclass(frozen=True)
class Desk:
    """The runtime, who may ask it, how many at once, and what they share. `now` tells Unix milliseconds."""

    service: Service
    keys: Keys
    gate: Gate
    frames: Frames
    metrics: Metrics
    now: Callable[[], int]
    about: bytes = b""
    """The OpenAPI document."""
