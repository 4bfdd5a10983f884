"""What a carried out decision came to, or the error that a refusal means."""

from typing import TypeVar

from dalsegno.core.append import ELSEWHERE, Decision, Fenced, Refusal
from dalsegno.errors import LeaseLost, Refused, Unavailable

R = TypeVar("R")


def result_of(decision: Decision[R]) -> R:
    """The result. Raises `Refused`, `Unavailable` if the session lives in another store, or `LeaseLost`."""
    if isinstance(decision, Refusal):
        if decision.code == ELSEWHERE.code:
            raise Unavailable(decision.detail, outcome="not_applied")
        raise Refused(decision.code, decision.detail)
    if isinstance(decision, Fenced):
        raise LeaseLost
    return decision.result
