"""What each finding means, and what to do instead. Words only."""

import msgspec


class Advice(msgspec.Struct, frozen=True):
    """`what` happened, `why` it matters, and what to do `instead`."""

    what: str
    why: str
    instead: str


TROUBLES: dict[str, Advice] = {
    "request": Advice(
        "a provider was sent another request",
        "after a restart, or on another replica, the model would be shown this instead",
        "build what the model is shown from `turn.context` (or the adapter's history) and from nothing else",
    ),
    "requests": Advice(
        "a step made another number of requests",
        "what a process remembers decides what is asked for",
        "ask in a `read` tool, or keep the answer with `turn.step(name, fn)`",
    ),
    "context": Advice(
        "the model was given another context",
        "something in the turn before it depends on the process",
        "what the agent says, and the steps it takes, come from `turn.context`, from tools and from steps",
    ),
    "said": Advice(
        "the model function said something else",
        "it was given the same context and the same answers: the rest came from the process",
        "use what it is given (`context.items`); a value that is needed later comes from `turn.step(name, fn)`",
    ),
    "says": Advice(
        "the agent said something else",
        "a client would see another answer after a restart",
        "what it says is made from `turn.context`, from tools and from steps (`turn.step(name, fn)`)",
    ),
    "result": Advice(
        "a step's function returned something else",
        "it uses what an earlier step or turn left in the process",
        "hand it what it needs as an argument, from the record: `x = await turn.step(…)`",
    ),
    "output": Advice(
        "a tool returned something else",
        "what it knows is in one process, and other replicas do not have it",
        "keep it in a database, in the session's metadata, or take it from the arguments",
    ),
    "call": Advice(
        "a tool was called with other arguments, or under another key",
        "the effect would be another one",
        "arguments come from the model's reply or from `turn.step(name, fn)`; forward `call.key`, make no key yourself",
    ),
    "end": Advice(
        "the turn ended in another way",
        "it works only in the process that began it",
        "whatever an earlier step or turn has prepared in memory is made in a step, or made anew where it is missing",
    ),
    "path": Advice(
        "the turn took another path when it was run again",
        "after a crash, steps on record are not found, and what they did is done again",
        "let the path follow from the record: take clock and chance from `turn.step(name, fn)`, sort sets, and give "
        "steps names that are always the same",
    ),
    "task": Advice(
        "a task was left running when the turn had ended",
        "when the replica goes, its work is lost, and nobody starts it again",
        "await it in the turn, in a `turn.step` or a tool; or hand it to a queue of its own",
    ),
    "thread": Advice(
        "a thread was left running when the turn had ended",
        "when the replica goes, its work is lost, and nobody starts it again",
        "await it in the turn (`asyncio.to_thread` in a step or a tool); or hand it to a queue of its own",
    ),
    "unseen": Advice(
        "what the model was sent cannot be seen, and the process remembers something",
        "nobody can say that the model would be shown the same by another process",
        "keep nothing, or ask the model through httpx or httpx2, as most providers' clients do",
    ),
    "nothing": Advice(
        "nothing could be compared",
        "a check that compared nothing has found nothing out",
        "see what it says, and give a conversation that the agent answers: --say, --script, --session",
    ),
}

HELD: dict[str, str] = {
    "global": "what belongs to the conversation is in `turn.context`, what belongs to a session in its metadata, what "
    "must happen once in `turn.step`; with a framework, make `deps` and the like for each turn. Clients and pools may "
    "stay global",
    "cache": 'cache what is the same for everybody and does not change, or use `@tool("read", cache=…)`',
    "library": "an object of a library keeps something: make it for each turn, or have it keep that in a store that "
    "all replicas share; a client or a pool may stay",
    "environment": "configuration is set when the process starts; what a turn finds out is a step's result",
    "folder": "other replicas are in another folder: write whole paths",
    "file": "other hosts do not have this file: keep it in a database or in object storage, or return it from a tool",
}

CAUSES: dict[str, str] = {
    "process": "two plays in one process agree, and a fresh process does not",
    "elsewhere": "the first play left something behind that the other two did not find: perhaps by a tool that was not "
    "run again (--effects run)",
    "chance": "a clock, chance or the order of a set decides it",
}
