"""`python -m dalsegno` and the command `dalsegno`."""

import sys

from dalsegno.ops.cli import run


def main() -> None:
    """The command line; ends the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
