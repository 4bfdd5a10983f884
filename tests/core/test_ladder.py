"""The ladder of degradation, as a table."""

from itertools import product
from typing import get_args

from dalsegno.core.ladder import LADDER, NOTHING, READING, WHOLE, State, Tier, standing


def test_every_tier_has_a_rung_for_every_state():
    """Nothing that can be is not in the table."""
    assert set(LADDER) == set(product(get_args(Tier), get_args(State)))


def test_only_the_log_takes_a_rung_away():
    """P10: a lost hot tier, and a lost cold one, leave everything possible; replicas stay in the balancer."""
    for (tier, state), rung in LADDER.items():
        if tier != "warm" or state == "ok":
            assert rung == WHOLE and rung.ready


def test_a_log_that_only_reads_keeps_its_replicas_where_they_can_be_asked():
    """What can still be served is served; without the log nothing can be."""
    assert standing({"warm": "refuses", "hot": "ok", "cold": "ok"}) == READING
    assert READING.ready and not READING.accepts
    assert not NOTHING.ready


def test_troubles_add_up():
    """The lowest rung counts, in whatever order."""
    for hot, cold in product(get_args(State), get_args(State)):
        assert standing({"hot": hot, "warm": "away", "cold": cold}) == NOTHING
        assert standing({"cold": cold, "warm": "refuses", "hot": hot}) == READING
        assert standing({"hot": hot, "warm": "ok", "cold": cold}) == WHOLE
