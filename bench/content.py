"""What is said in a turn that is measured: a message of 200 bytes, a tool's result of 2 KB, an answer of 600 bytes.

Nothing but the standard library: peers are measured with it in environments of their own. The content is hard to
compress, so that no store can cheat.
"""

import random
import re
import string

MESSAGE_BYTES, RESULT_BYTES, ANSWER_BYTES, ORDER_BYTES = 200, 2048, 600, 20
CONTENT_BYTES = MESSAGE_BYTES + RESULT_BYTES + ANSWER_BYTES + 60
"""What a turn holds of content: the three texts, and the call's name, arguments and id."""

_noise = "".join(random.Random(1).choices(string.ascii_letters + string.digits + " ", k=1_000_000))
_MARK = re.compile(r"^\[([^\]]*)\]")


def text(size: int) -> str:
    """So many bytes of noise; making it costs nothing that would be measured."""
    begin = random.randrange(len(_noise) - size)
    return _noise[begin : begin + size]


def marked(mark: str, size: int) -> str:
    """The same, of the turn with that mark."""
    head = f"[{mark}] "
    return head + text(size - len(head))


def mark_of(said: object) -> str:
    """The mark of the turn that a text belongs to; empty if it has none."""
    found = _MARK.match(said) if isinstance(said, str) else None
    return found[1] if found else ""
