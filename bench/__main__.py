"""`python -m bench [NAME ...]`: measure, show the table, and with `--save` write `docs/figures`.

`peers` is measured only when it is named: it installs what it compares with from the registry, once.
"""

import argparse
import asyncio
import os
import sys

import msgspec

from bench import disk, frameworks, opening, postgres, stack, start, streams, takeover, turns
from bench.peers import report as peers
from bench.peers.measure import RELEASE, Sizes, compare
from bench.peers.roster import ROSTER
from bench.report import Figure, save, show

PARTS = {
    "turns": turns,
    "disk": disk,
    "postgres": postgres,
    "frameworks": frameworks,
    "open": opening,
    "stack": stack,
    "streams": streams,
    "takeover": takeover,
    "start": start,
}
PEERS = "peers"


def main() -> int:
    """Run the parts that were named, or all; 1 if a bar does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = ", ".join(PARTS)
    parser.add_argument("parts", nargs="*", help=f"any of {names}, all of them when none is given; or {PEERS}")
    parser.add_argument("--save", action="store_true", help="write the figures, the page and the picture")
    asked = parser.parse_args()
    unknown = [name for name in asked.parts if name not in PARTS and name != PEERS]
    if unknown:
        parser.error(f"no part named {unknown[0]}; there are {names} and {PEERS}")
    figures: list[Figure] = []
    for name in asked.parts or PARTS:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        measured = PARTS[name].measure() if name in PARTS else _peers(save=asked.save)
        figures += [msgspec.structs.replace(figure, part=name) for figure in measured]
    show(figures)
    if asked.save:
        save(figures)
    return 0 if all(figure.holds for figure in figures) else 1


def _peers(*, save: bool) -> list[Figure]:
    """The comparison, which has a page of its own; its bar is a figure like the others."""
    sizes = RELEASE if os.environ.get("RELEASE_SIZES", "") not in ("", "0") else Sizes()
    comparison = asyncio.run(compare(ROSTER, sizes))
    print(peers.page(comparison))
    if save:
        peers.save(comparison)
    return peers.figures(comparison)


if __name__ == "__main__":
    sys.exit(main())
