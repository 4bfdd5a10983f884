"""How much is enough: the two columns of the table of figures. `RELEASE_SIZES=1` asks for the right one.

The stack of several machines is asked for less than the left one, unless `STACK_SIZES=ci` says otherwise.
"""

import os
import sys

RELEASE = os.environ.get("RELEASE_SIZES", "") not in ("", "0")
STACK = os.environ.get("STACK_SIZES", "") or "small"


def size(ci: int, release: int) -> int:
    """How often something is to be done in this run."""
    return release if RELEASE else ci


def stack_size(small: int, ci: int, release: int) -> int:
    """The same on the stack, where what the embedded tiers have been through is only tried in an ordinary run."""
    return size({"small": small, "ci": ci}[STACK], release)


def seconds(ci: float) -> float:
    """How long a test of that many seconds may take in this run (`pytest.mark.timeout`)."""
    return ci * 60 if RELEASE else ci


def percentile(values: list[float], share: float) -> float:
    """The value that this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def publish(figures: str) -> None:
    """Say what was measured: shown by `pytest -rP`, and when the test fails."""
    sys.stdout.write(f"{figures}\n")
