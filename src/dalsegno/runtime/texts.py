"""Large texts: put into the cold tier before the log points to them, and given to readers whole.

A cold tier that does not answer keeps nobody from writing: the text stays in the log, as small ones do.
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from dalsegno.core.admit import Admission, Admitted
from dalsegno.core.append import Decision, Keep, Known
from dalsegno.core.bring import Added, Brought
from dalsegno.core.event import Event, ItemDone
from dalsegno.core.input import Message
from dalsegno.core.json import JsonObject
from dalsegno.core.lease import Lease
from dalsegno.core.lifecycle import missing_text, with_text
from dalsegno.core.session import Session
from dalsegno.core.tier import (
    INLINE_MAX,
    Artifact,
    Spill,
    pointer_of,
    restored,
    spill_brought,
    spill_item,
    spill_message,
)
from dalsegno.errors import Refused, Unavailable, Unreadable
from dalsegno.ports import Blobs, Log, Ref

replace = msgspec.structs.replace
TRIES = 3
Admit = Callable[[Admission], Awaitable[Admitted]]


class Texts:
    """The way of texts of more than `inline_max` bytes into the cold tier and back."""

    def __init__(self, blobs: Blobs, *, inline_max: int = INLINE_MAX) -> None:
        self._blobs = blobs
        self._inline_max = inline_max

    def spill(self, item: JsonObject, lease: Lease) -> Spill[JsonObject] | None:
        """What is to be put before the item may be recorded; None = nothing."""
        return spill_item(lease.session, lease.epoch, item, inline_max=self._inline_max)

    async def put(self, tenant: str, spill: Spill[JsonObject] | Spill[Message] | Spill[ItemDone]) -> None:
        """Put it. Raises `Unavailable`."""
        await self._blobs.put(spill.artifact.name(tenant), spill.payload)

    async def keep(self, item: JsonObject, lease: Lease) -> JsonObject:
        """The item as the log is to hold it."""
        spill = self.spill(item, lease)
        if spill is None or not await self._has_put(lease.tenant, spill):
            return item
        return spill.kept

    async def admit(self, admission: Admission, *, log: Log, admit: Admit) -> Admitted:
        """Admit an input whose text may be large. What its key has admitted already needs no cold tier."""
        said, digest = admission.said, admission.key.digest if admission.key else None
        if not isinstance(said, Message) or self._spilled(admission, said, 0) is None:
            return await admit(admission)
        ref = Ref(admission.tenant, admission.session)
        for _ in range(TRIES):
            found = await log.commit(ref, _look, digest=digest)
            epoch = found.result if isinstance(found, Keep) else None
            spill = None if epoch is None else self._spilled(admission, said, epoch)
            if spill is None or not await self._has_put(admission.tenant, spill):
                break
            try:
                return await admit(replace(admission, said=spill.kept, put_under=epoch))
            except Refused as refused:
                if refused.code != "put_again":
                    raise
        return await admit(admission)

    async def bring(self, brought: Brought, *, log: Log, write: Callable[[Brought], Awaitable[Added]]) -> Added:
        """The same for items that somebody outside brings in."""
        ref, digest = Ref(brought.tenant, brought.session), brought.key.digest if brought.key else None
        for _ in range(TRIES):
            if not any(self._spilled_item(ref, item, 0) for item in brought.items):
                break
            found = await log.commit(ref, _look, digest=digest)
            epoch = found.result if isinstance(found, Keep) else None
            if epoch is None:
                break
            kept = [await self._kept_item(ref, item, epoch) for item in brought.items]
            try:
                return await write(replace(brought, items=tuple(kept), put_under=epoch))
            except Refused as refused:
                if refused.code != "put_again":
                    raise
        return await write(brought)

    async def whole(self, tenant: str, events: Sequence[Event]) -> Sequence[Event]:
        """The events as readers are given them. Raises `Unreadable` where a text is lost, `Unavailable` where it may
        be had later.
        """
        lacking = [(place, lack) for place, event in enumerate(events) if (lack := missing_text(event)) is not None]
        if not lacking:
            return events
        found = list(events)
        for place, artifact in lacking:
            found[place] = with_text(found[place], await self._text(tenant, artifact))
        return found

    async def message(self, tenant: str, said: Message) -> Message:
        """The same of a message."""
        artifact = pointer_of(said)
        return said if artifact is None else restored(said, await self._text(tenant, artifact))

    async def _text(self, tenant: str, artifact: Artifact) -> str:
        content = await self._blobs.get(artifact.name(tenant))
        if content is None:
            raise Unreadable(f"artifact {artifact} is missing")
        return content.decode()

    def _spilled(self, admission: Admission, said: Message, epoch: int) -> Spill[Message] | None:
        return spill_message(admission.session, epoch, said, inline_max=self._inline_max)

    def _spilled_item(self, ref: Ref, item: ItemDone, epoch: int) -> Spill[ItemDone] | None:
        return spill_brought(ref.id, epoch, item, inline_max=self._inline_max)

    async def _kept_item(self, ref: Ref, item: ItemDone, epoch: int) -> ItemDone:
        spill = self._spilled_item(ref, item, epoch)
        return item if spill is None or not await self._has_put(ref.tenant, spill) else spill.kept

    async def _has_put(self, tenant: str, spill: Spill[JsonObject] | Spill[Message] | Spill[ItemDone]) -> bool:
        try:
            await self.put(tenant, spill)
        except Unavailable:
            return False
        return True


def _look(session: Session | None, known: Known | None, now: int) -> Decision[int | None]:
    """The epoch to put a text under; None where nothing has to be put."""
    if known is not None or (session is not None and (session.deleted or session.moved)):
        return Keep(None)
    return Keep(0 if session is None else session.epoch)
