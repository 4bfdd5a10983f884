"""A crash at every step of a turn, for every class of effect: nothing lost, nothing doubled, nothing stuck (P1, P5,
P6, P7).
"""

import pytest

from dalsegno.testing.world.script import Script
from dalsegno.testing.world.sweep import Notice, Sweep, Swept

SCRIPTS = {
    "words": Script("words", (), words=3),
    "read": Script("read", (("read",),), words=3),
    "keyed": Script("keyed", (("keyed",),), words=3),
    "transactional": Script("transactional", (("tx",),), words=3),
    "once_tell": Script("tell", (("once",),), words=3),
    "once_probe": Script("probe", (("probed",),), words=3),
    "once_ask": Script("ask", (("asked",),), words=3),
    "approval": Script("approval", (("gated",),), words=3),
    "outside": Script("outside", (("outside",),), words=3),
    "dedupe": Script("dedupe", (("twice",), ("twice",)), words=3),
    "parallel": Script("parallel", (("keyed", "once", "tx"),), words=3),
    "agent_asks": Script("agent asks", (("keyed",),), before="ask", words=3),
    "agent_calls": Script("agent calls", (), before="call", words=3),
    "agent_step": Script("agent step", (), before="step", words=3),
    "artifact": Script("artifact", (("large",),), words=3),
}
EFFECTS = {
    **dict.fromkeys(
        ("keyed", "transactional", "once_probe", "once_ask", "approval", "dedupe", "agent_asks", "agent_calls"), 1
    ),
    **dict.fromkeys(("words", "read", "outside", "agent_step", "artifact"), 0),
    "once_tell": 1,
    "parallel": 3,
}
"""How often the outside world was changed once the turn has completed."""


@pytest.mark.parametrize("notice", ["told", "untold"])
@pytest.mark.parametrize("name", list(SCRIPTS))
def test_a_crash_at_every_step(name: str, notice: Notice):
    """Wherever its replica dies, the turn completes on another one, each effect as often as its class promises."""
    place, problems, points = 0, list[str](), set[str]()
    while True:
        place += 1
        swept = Sweep(SCRIPTS[name], place=place, notice=notice).run()
        problems += [f"crash {place} at {swept.point}: {text}" for text in (*swept.broken, *_wrong(name, swept))]
        if swept.point is None:
            break
        points.add(swept.point)
    assert not problems, "\n".join(problems[:20])
    assert {"model:delta", "log.commit:before", "log.commit[turn.completed]:after", "hot.publish:after"} <= points
    assert place > 50, "the sweep has come to an end before the turn had"


def _wrong(name: str, swept: Swept) -> list[str]:
    """What the class of effect promises and did not come about."""
    count, wanted = sum(swept.applied.values()), EFFECTS[name]
    unknown = sum("outcome of this call is unknown" in output for output in swept.outputs)
    problems = list[str]()
    if name in ("once_tell", "parallel") and count < wanted and wanted - count <= unknown:
        return problems  # at most once: the model was told that nobody knows
    if count != wanted:
        problems.append(f"{count} effects instead of {wanted}: {swept.applied}")
    if unknown and name not in ("once_tell", "parallel"):
        problems.append(f"an outcome is unknown that could be known: {swept.outputs}")
    if name in ("read", "artifact") and not swept.tries:
        problems.append("nothing was read")
    return problems
