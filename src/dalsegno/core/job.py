"""Jobs: work outside of any turn, whose steps are on record in a session of its own, so that any process goes on.

    taken ──step──► taken ──left──► free          whoever takes a job that is taken must know that its owner is dead

A job's log is the fence, too: each record is written behind the last one that its owner knows, so an owner that was
taken for dead finds that the job went on without it. Nothing here runs a step.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from dalsegno.core.effect import RECOVERY
from dalsegno.core.event import EffectClass
from dalsegno.core.item import EVENT, STEP, custom
from dalsegno.core.json import Json, JsonObject
from dalsegno.errors import Unreadable

TAKEN = "job.taken"
LEFT = "job.left"
JOB = "job:"
CALL = "call:"
"""What the names of their sessions begin with: jobs, and calls of functions that run once (`result` is the step)."""
RESULT = "result"

Next = Literal["answer", "wait", "run", "ask"]


class Job(msgspec.Struct):
    """What a job's records say. `owner` has taken it and not left it; `results` are its steps'.

    `doubt` says that whoever had it last is gone without a word, or could not say what happened: why.
    """

    owner: str = ""
    doubt: str = ""
    results: dict[str, Json] = {}


class _Data(msgspec.Struct):
    owner: str
    doubt: str = ""


def taken(owner: str) -> JsonObject:
    """The record that somebody goes on with the job from here, and nobody else does."""
    return _record(TAKEN, {"owner": owner})


def left(owner: str, *, doubt: str = "") -> JsonObject:
    """The record that its owner let it go. `doubt`: it cannot say whether what it had begun took place."""
    return _record(LEFT, {"owner": owner, "doubt": doubt} if doubt else {"owner": owner})


def recorded(name: str, result: Json) -> JsonObject:
    """The record of a step."""
    return {"type": STEP, "name": name, "output": result}


def fold(items: Iterable[JsonObject], job: Job | None = None) -> Job:
    """The job as its records tell it. Items of other kinds are passed over."""
    job = Job() if job is None else job
    for item in items:
        kind, name = item["type"], item.get("name")
        if kind == STEP:
            job.results.setdefault(str(name), item.get("output"))
        elif kind == EVENT and name == TAKEN:
            job.owner, job.doubt = _data(item).owner, ""
        elif kind == EVENT and name == LEFT:
            job.owner, job.doubt = "", _data(item).doubt
    return job


def orphaned(job: Job) -> Job:
    """The job once its owner is known to be dead: whether what it had begun took place, nobody knows."""
    doubt = f"the process that ran it ({job.owner}) died before it could report"
    return Job("", doubt, job.results) if job.owner else job


def following(job: Job, effect: EffectClass) -> Next:
    """What a call of a function comes to that is on record as this job. `ask`: find out whether it happened."""
    if RESULT in job.results:
        return "answer"
    if job.owner:
        return "wait"
    return "ask" if job.doubt and RECOVERY[effect] is None else "run"


def _record(name: str, data: JsonObject) -> JsonObject:
    record = custom(name, data, item_id="")
    del record["id"]
    return record


def _data(item: JsonObject) -> _Data:
    try:
        return msgspec.convert(item.get("data"), _Data)
    except msgspec.ValidationError as error:
        raise Unreadable(f"record {item.get('id')} of a job cannot be understood: {error}") from None
