"""One process of a check: `python -m dalsegno.ops.check.child FD`. Its order comes on stdin, its notes leave by FD."""

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from dalsegno.core.ids import turn_id
from dalsegno.errors import ConfigError, DalsegnoError
from dalsegno.ops.check.answers import Answers
from dalsegno.ops.check.play import Player
from dalsegno.ops.check.talk import AnyNote, Cannot, Loaded, Order, Record
from dalsegno.ops.check.watch import Watch
from dalsegno.ops.check.wire import audit, listen
from dalsegno.ops.load import load
from dalsegno.ops.logs import last_words, log_to_stderr

REASON_CHARACTERS_MAX = 4000


def main() -> int:
    """Carry out the order; the exit code."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    random.seed(order.seed)
    log_to_stderr(level="critical", style="text")
    with os.fdopen(int(sys.argv[1]), "wb", buffering=0) as out:
        try:
            asyncio.run(_play(order, out))
        except (DalsegnoError, OSError) as error:
            _tell(out, Cannot(str(error)[:REASON_CHARACTERS_MAX], 2 if isinstance(error, ConfigError) else 1))
        except BaseException as error:
            _tell(out, Cannot(last_words(error)[:REASON_CHARACTERS_MAX], 1))
            raise
    return 1


async def _play(order: Order, out: BinaryIO) -> None:
    watch = Watch(order, _answers(order), lambda note: _tell(out, note))
    listen(watch)
    if watch.first:
        audit(watch.connected)
    agent = load(order.target, folder=Path(order.folder))
    _tell(out, Loaded())
    await Player(order, agent, watch, lambda note: _tell(out, note)).play()
    # What the agent left running must not keep this process: that it was left is on record.
    os._exit(0)


def _answers(order: Order) -> Answers:
    record = msgspec.json.decode(Path(order.record).read_bytes(), type=Record) if order.record else Record()
    turns = {event.turn: turn_id(order.scenes[0].session, event.turn) for event in record.events if event.turn}
    return Answers(record, turns)


def _tell(out: BinaryIO, note: AnyNote) -> None:
    out.write(msgspec.json.encode(note) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
