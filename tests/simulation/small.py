"""Worlds in which little is much: a few words are a large text, and a few events take several pieces to erase."""

import msgspec
import pytest

from dalsegno.stores.memory import database
from dalsegno.testing.world import fleet

FEW_WORDS_BYTES = 8
FEW_EVENTS = 3


def make_much_of_little(patch: pytest.MonkeyPatch) -> None:
    """So that short conversations have artifacts, and erasures can be met half done."""
    patch.setattr(fleet, "TUNING", msgspec.structs.replace(fleet.TUNING, inline_max_bytes=FEW_WORDS_BYTES))
    patch.setattr(database, "ERASED_AT_ONCE", FEW_EVENTS)
