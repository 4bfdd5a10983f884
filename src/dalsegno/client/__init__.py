"""The Python client: sessions and their streams over HTTP, on any replica. Knows the contract, nothing of the server.

    async with Client(["http://a:8000", "http://b:8000"], api_key="...") as client:
        session = await client.sessions.create()
        async for event in session.run("hi"):
            print(event.type, event.data)

JSON objects are as in the API reference. What may pass is tried again, on the next replica (`Retry`). What is raised:

    DalsegnoError
    └── ClientError           `outcome`: was anything applied; `key`: repeat an input under it, and nothing is doubled
        ├── ApiError          the server refused: change the request (4xx) or come back later (429, 5xx)
        ├── Unreachable       no replica answered, or the answer was lost: come back later
        ├── ContractBroken    an answer makes no sense, a stream has a gap or a repetition: report it
        └── TurnNotCompleted  `ask` only: the turn failed, was cancelled or waits for somebody: see `event`
"""

from dalsegno.client.events import (
    TERMINAL,
    ApiError,
    ClientError,
    ContractBroken,
    Event,
    Receipt,
    Retry,
    SseParser,
    Transcript,
    TurnNotCompleted,
    Unreachable,
    text_of,
)
from dalsegno.client.http import Client, SessionHandle, Sessions

__all__ = [
    "TERMINAL",
    "ApiError",
    "Client",
    "ClientError",
    "ContractBroken",
    "Event",
    "Receipt",
    "Retry",
    "SessionHandle",
    "Sessions",
    "SseParser",
    "Transcript",
    "TurnNotCompleted",
    "Unreachable",
    "text_of",
]
