"""Results that are there already: of an identical call of the session, in its log; of one of the tenant, near."""

from datetime import timedelta
from functools import partial

from dalsegno.core import codec
from dalsegno.core.append import Decision, Fenced, Keep, Known, Refusal
from dalsegno.core.effect import dedupe_digest
from dalsegno.core.event import ItemDone
from dalsegno.core.frozen import RESULT, seal, unseal
from dalsegno.core.ids import effect_key, hash16, short_hash, turn_id, undone_digest
from dalsegno.core.json import clean_text
from dalsegno.core.session import Session
from dalsegno.ports import Call, Ref, Tool
from dalsegno.runtime.near import Near
from dalsegno.runtime.outcome import Outcome, outcome_of
from dalsegno.runtime.patience import patiently
from dalsegno.runtime.recorder import Recorder
from dalsegno.runtime.tiers import Tiers


class Recall:
    """One turn's way to them."""

    def __init__(self, recorder: Recorder, *, tiers: Tiers, near: Near) -> None:
        self._recorder = recorder
        self._log = tiers.log
        self._closing = tiers.closing
        self._near = near

    async def run_or_recall(self, tool: Tool, call: Call, seconds: float) -> Outcome:
        """What an identical call came to a short while ago, in whatever session of the tenant; or the tool is run."""
        names = (RESULT, call.tenant, self._recorder.session.agent, dedupe_digest(tool.name, call.arguments))
        ref = Ref(call.tenant, f"tool_{short_hash(*names)}")
        kept = await self._near.get(ref, RESULT)
        known = None if kept is None else unseal(kept[1], *names)
        if known is not None:
            return Outcome(known.decode())
        made = await outcome_of(tool, call)
        if made.status == "completed" and not made.details:
            content = seal(clean_text(made.text).encode(), *names)
            self._near.put(ref, RESULT, 0, content, keep=timedelta(seconds=seconds))
        return made

    async def remembered(self, digest: bytes) -> tuple[bytes, str | None]:
        """The output that the session's log has under this digest, and the digest to remember a new one under.

        What was undone is not answered from the record any more: the next call of its kind is made, and remembered
        under a digest of its own, since the first of a digest stays.
        """
        return await patiently(partial(self._look, digest), closing=self._closing)

    async def _look(self, digest: bytes) -> tuple[bytes, str | None]:
        ref = self._recorder.ref
        while (found := await self._known(digest)) is not None:
            event = (await self._log.read(ref, after=found.seq - 1, limit=1))[0]
            data = codec.decode(event)
            if not isinstance(data, ItemDone):
                break
            key = effect_key(ref.tenant, ref.id, turn_id(ref.id, event.turn or 0), str(data.item["call_id"]))
            if await self._known(undone_digest(key)) is None:
                return digest, str(data.item["output"])
            digest = hash16("again", digest, key)
        return digest, None

    async def _known(self, digest: bytes) -> Known | None:
        decision = await self._log.commit(self._recorder.ref, _look_up, digest=digest)
        return None if isinstance(decision, Refusal | Fenced) else decision.result


def _look_up(session: Session | None, known: Known | None, now: int) -> Decision[Known | None]:
    return Keep(known)
