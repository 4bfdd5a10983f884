"""A crash at every step of a turn, for every class of effect: nothing lost, nothing doubled, nothing stuck (P1, P5,
P6, P7).
"""

from collections.abc import Iterator
from itertools import count

import pytest

from dalsegno.testing.world.script import Script
from dalsegno.testing.world.sweep import Notice, Sweep, Swept
from tests.acceptance.sizes import seconds, size

pytestmark = [pytest.mark.timeout(seconds(120))]
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
    "voices": Script("voices", (), before="discuss", words=3),
    "artifact": Script("artifact", (("large",),), words=3),
    "undone": Script("undone", (("paid", "booked"),), words=1, after="raise"),
}
EFFECTS = {
    **dict.fromkeys(
        ("keyed", "transactional", "once_probe", "once_ask", "approval", "dedupe", "agent_asks", "agent_calls"), 1
    ),
    **dict.fromkeys(("words", "read", "outside", "agent_step", "voices", "artifact"), 0),
    "once_tell": 1,
    "parallel": 3,
    "undone": 2,
}
"""How often the outside world was changed once the turn has completed."""


@pytest.mark.parametrize("notice", ["told", "untold"])
@pytest.mark.parametrize("name", list(SCRIPTS))
def test_a_crash_at_every_step(name: str, notice: Notice):
    """Wherever its replica dies, the turn goes on to its end on another one, each effect as often as its class
    promises; and, of a turn that fails, is undone once (which the world itself looks at: `testing.world.undone`).
    """
    for seed in range(size(1, 50)):
        crashes = list(_crashes(SCRIPTS[name], notice, seed))
        problems = [
            f"seed {seed}, crash {place} at {swept.point}: {text}"
            for place, swept in enumerate(crashes, 1)
            for text in (*swept.broken, *_wrong(name, swept))
        ]
        assert not problems, "\n".join(problems[:20])
        points = {swept.point for swept in crashes}
        end = "failed" if SCRIPTS[name].after else "completed"
        assert {"model:delta", "log.commit:before", f"log.commit[turn.{end}]:after", "hot.publish:after"} <= points
        assert not SCRIPTS[name].after or {"undo:before", "undo:effect", "undo:after", "log.close:after"} <= points
        assert len(crashes) > 50, "the sweep has come to an end before the turn had"


def _crashes(script: Script, notice: Notice, seed: int) -> Iterator[Swept]:
    """A crash at the first step, at the second, …; and the turn in which none comes any more."""
    for place in count(1):
        swept = Sweep(script, place=place, notice=notice, seed=seed).run()
        yield swept
        if swept.point is None:
            return


def _wrong(name: str, swept: Swept) -> list[str]:
    """What the class of effect promises and did not come about."""
    done, wanted = sum(swept.applied.values()), EFFECTS[name]
    unknown = sum("outcome of this call is unknown" in output for output in swept.outputs)
    problems = [f"{swept.not_undone} were not undone"] if swept.not_undone else []
    if name in ("once_tell", "parallel") and done < wanted and wanted - done <= unknown:
        return problems  # at most once: the model was told that nobody knows
    if done != wanted:
        problems.append(f"{done} effects instead of {wanted}: {swept.applied}")
    if unknown and name not in ("once_tell", "parallel"):
        problems.append(f"an outcome is unknown that could be known: {swept.outputs}")
    if name in ("read", "artifact") and not swept.tries:
        problems.append("nothing was read")
    return problems
