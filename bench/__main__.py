"""`python -m bench [NAME ...]`: measure, show the table, and with `--save` write `docs/figures`."""

import argparse
import sys

from bench import disk, opening, postgres, start, streams, takeover, turns
from bench.report import Figure, save, show

PARTS = {
    "turns": turns,
    "disk": disk,
    "postgres": postgres,
    "open": opening,
    "streams": streams,
    "takeover": takeover,
    "start": start,
}


def main() -> int:
    """Run the parts that were named, or all; 1 if a bar does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; all when none is given")
    parser.add_argument("--save", action="store_true", help="write the figures, the page and the picture")
    asked = parser.parse_args()
    unknown = [name for name in asked.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part named {unknown[0]}; there are {', '.join(PARTS)}")
    figures: list[Figure] = []
    for name in asked.parts or PARTS:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        figures += PARTS[name].measure()
    show(figures)
    if asked.save:
        save(figures)
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
