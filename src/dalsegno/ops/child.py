"""The process that a supervisor starts: `python -m dalsegno.ops.child FD`, FD being its end of the lifeline."""

import sys
from functools import partial
from typing import Any

from dalsegno.errors import ConfigError, DalsegnoError
from dalsegno.ops.lifeline import Failed, Lifeline
from dalsegno.ops.load import load
from dalsegno.ops.logs import last_words, log_to_stderr
from dalsegno.ops.serve import serve

REASON_CHARACTERS_MAX = 2000


def main() -> int:
    """Be the replica that the supervisor orders, until it or the supervisor says otherwise; the exit code."""
    lifeline = Lifeline(int(sys.argv[1]))
    try:
        config = lifeline.order().config
    except EOFError:
        return 1
    lifeline.watch(patience=config.drain_timeout)
    sys.excepthook = partial(confess, lifeline, config.log_level)
    log_to_stderr(level=config.log_level, style=config.log_format, replica=config.replica_id)
    try:
        serve(config, load(config.target, name=config.agent_name), announce=lifeline.report, share="fleet")
    except (DalsegnoError, OSError) as error:
        code = 2 if isinstance(error, ConfigError) else 1
        lifeline.report(Failed(str(error)[:REASON_CHARACTERS_MAX], code))
        return code
    return 0


def confess(lifeline: Lifeline, level: str, kind: type[BaseException], error: BaseException, tb: Any) -> None:
    """Tell the supervisor about an error that nobody expected; the traceback is for those who debug."""
    if level == "debug":
        sys.__excepthook__(kind, error, tb)
    words = last_words(error)[:REASON_CHARACTERS_MAX]
    lifeline.report(Failed(f"{words} (--log-level debug shows the traceback)", 1))


if __name__ == "__main__":
    sys.exit(main())
