"""The weather: what is wrong with the world at this moment, and a count of everything that ever was.

A fault is either a condition that lasts (`slow`, `cut`, `down`), or it is armed and strikes once, at the next call
that it fits. Nothing here waits or decides; `tiers` looks up what is to happen to a call.
"""

import random
from collections import Counter
from collections.abc import Callable

from dalsegno.ports import Ref
from dalsegno.testing.world.loop import Process

CALLS = {
    "log": (
        *("commit", "load", "read", "claim", "holdings", "bury", "join", "leave", "erase"),
        *("begin", "execute", "close"),
    ),
    "hot": ("publish", "fence", "read", "clear", "tell"),
    "blobs": ("put", "get", "delete"),
}
WRITTEN = (
    *("turn.created", "turn.input", "turn.started", "item.done", "tool.intent"),
    *("turn.waiting", "turn.completed", "turn.failed", "turn.cancelled", "nothing"),
    *("session.created", "session.deleted", "turn.undoing", "tool.undone"),
)
CRASH_POINTS = frozenset(
    [f"{tier}.{call}:{side}" for tier, calls in CALLS.items() for call in calls for side in ("before", "after")]
    + [f"log.commit[{kind}]:after" for kind in WRITTEN]
    + ["model:before", "model:delta", "model:after", "tool:before", "tool:effect", "tool:after"]
    + ["undo:before", "undo:effect", "undo:after"]
)
"""Every place where a replica can die. `log.commit[x]` is a commit whose last event was an `x`; `close` is a
transaction's own commit."""


class Armed:
    """A fault that strikes once: at the `after`-th call from now that `fits`."""

    def __init__(self, kind: str, fits: Callable[[Process | None, str], bool], after: int = 0) -> None:
        self.kind = kind
        self.fits = fits
        self.after = after


class Weather:
    """The conditions of one world. `kill` is how a process dies at a crash point."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.happened: Counter[str] = Counter()
        self.crashed: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.trace: list[tuple[object, ...]] = []
        self.armed: list[Armed] = []
        self.slow: dict[str, float] = {}
        self.down: set[str] = set()
        self.cut: set[str] = set()
        self.hints: dict[str, float] = {}
        self.calm = False
        self.kill: Callable[[Process], None] = _nobody
        self.clock: Callable[[], float] = float

    def note(self, *what: object) -> None:
        """One more line of the trace."""
        self.trace.append((round(self.clock(), 6), *what))

    def count(self, kind: str) -> None:
        """A fault took effect."""
        self.happened[kind] += 1
        self.note("fault", kind)

    def did(self, what: str, ref: Ref) -> None:
        """Something that somebody does with a whole session came off."""
        self.done[what] += 1
        self.note(what, ref.id[-4:])

    def arm(self, kind: str, fits: Callable[[Process | None, str], bool], after: int = 0) -> None:
        """Have `kind` strike at a call to come."""
        self.armed.append(Armed(kind, fits, after))

    def strikes(self, process: Process | None, point: str) -> str | None:
        """The armed fault that strikes here and now, if one does."""
        for fault in self.armed:
            if fault.fits(process, point):
                fault.after -= 1
                if fault.after < 0:
                    self.armed.remove(fault)
                    return fault.kind
        return None

    def reaches(self, process: Process | None, point: str) -> None:
        """A process comes past a crash point; it may be the last thing that it does."""
        if process is not None and self.armed and not process.dead and self.strikes(process, point) == "crash at":
            self.crashed[point] += 1
            self.count("crash at a point")
            self.note("dies", process.incarnation, point)
            self.kill(process)

    def heal(self) -> None:
        """Everything works from here on."""
        self.armed.clear()
        self.slow.clear()
        self.down.clear()
        self.cut.clear()
        self.hints.clear()
        self.calm = True


def _nobody(process: Process) -> None:
    return None
