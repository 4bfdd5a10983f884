"""What every handler works with, in one value."""

from collections.abc import Callable
from dataclasses import dataclass

from dalsegno.core.stream import Frame
from dalsegno.http.auth import Keys
from dalsegno.http.gate import Gate
from dalsegno.http.metrics import Metrics
from dalsegno.http.needs import Service, Stream
from dalsegno.wire.native import Frames, sse_frame


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

    def sse(self, session: str, stream: Stream) -> Callable[[Frame], bytes]:
        """What encodes that session's frames for this reader."""
        alone, together, now = sse_frame, self.frames.sse, self.now

        def encode(frame: Frame) -> bytes:
            return (together if stream.shared else alone)(session, frame, now=now())

        return encode
