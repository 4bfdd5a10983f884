"""What the scripted model server was asked, read from its log over HTTP."""

from collections import Counter
from collections.abc import Mapping

import httpx2
import msgspec

from dalsegno.testing.model.shown import Shown

PROJECT = "openai-project"
"""The header by which a provider's client says which replica it is in: `OPENAI_PROJECT_ID` of its environment."""


class Brief(msgspec.Struct, frozen=True):
    """A request as far as it matters at once."""

    number: int
    headers: dict[str, str]


class Ask(msgspec.Struct, frozen=True):
    """A request: when it came (Unix milliseconds), what the model was shown, and why that was refused."""

    number: int
    at: int
    shown: Shown | None = None
    refusal: str = ""


class ModelLog:
    """The log of the server that `http` leads to."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        self._counted = Counter[str]()
        self._last = 0

    def counted(self) -> Mapping[str, int]:
        """How often each project has asked so far."""
        for brief in msgspec.json.decode(self._read(self._last), type=_Briefs).data:
            self._counted[brief.headers.get(PROJECT, "")] += 1
            self._last = brief.number
        return Counter(self._counted)

    def asks(self) -> list[Ask]:
        """All requests, but those whose sender died before all of it had come: they showed nothing."""
        asks = msgspec.json.decode(self._read(0), type=_Asks).data
        return [ask for ask in asks if ask.shown is not None or ask.refusal]

    def _read(self, after: int) -> bytes:
        return self._http.get("/log", params={"after": after}).raise_for_status().content


class _Briefs(msgspec.Struct):
    data: list[Brief]


class _Asks(msgspec.Struct):
    data: list[Ask]
