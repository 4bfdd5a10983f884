"""What a stored history says about turns that were attempted. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

History = Sequence[tuple[str, str]]
"""In the order that it is stored in: u message, c call, r result, a answer; and the mark of its turn."""


class Writers(msgspec.Struct, frozen=True):
    """How many of the turns that two processes attempted at once on one session came to what.

    `unmixed` of the `whole` ones have their call, result and answer next to each other. `refused` raised an error and
    left nothing, `half` raised one and left something; `lost` were reported as done, and are not there as they should.
    """

    attempted: int
    whole: int
    unmixed: int
    refused: int
    half: int
    lost: int
    errors: tuple[str, ...]


class Crash(msgspec.Struct, frozen=True):
    """What came of a turn whose process died between the tool's effect and its record.

    `by` says who went on, `seconds` how long that took once a new process was ready; `turn` is what is stored of it in
    the end. `effects` counts how often the tool did it, `calls` under how many call ids.
    """

    by: str
    seconds: float
    seen: str
    turn: str
    effects: int
    calls: int
    next_turn: bool


def kept(history: History, mark: str) -> str:
    """The letters of one turn's messages, in order."""
    return "".join(kind for kind, found in history if found == mark)


def unmixed(history: History, mark: str) -> bool:
    """Whether nobody else's call, result or answer lies between the turn's own."""
    done = [found for kind, found in history if kind != "u"]
    places = [place for place, found in enumerate(done) if found == mark]
    return bool(places) and places[-1] - places[0] == len(places) - 1


def judge(history: History, outcomes: Mapping[str, str]) -> Writers:
    """The verdict; `outcomes` holds for each mark the error that its caller was given, or nothing."""
    whole = [mark for mark in outcomes if kept(history, mark) == "ucra"]
    failed = [mark for mark in outcomes if outcomes[mark] and mark not in whole]
    half = [mark for mark in failed if kept(history, mark)]
    return Writers(
        attempted=len(outcomes),
        whole=len(whole),
        unmixed=sum(unmixed(history, mark) for mark in whole),
        refused=len(failed) - len(half),
        half=len(half),
        lost=len(outcomes) - len(whole) - len(failed),
        errors=tuple(sorted({outcomes[mark].partition(":")[0] for mark in failed})),
    )
