"""The conformance suite: what every store of Dalsegno, first-party or not, has to pass. Shipped, so that yours can.

A backend writes a world (`worlds`, with `memory` as the example) and a few lines of tests. pytest is needed, with a
plugin that runs async tests and fixtures (anyio's in its auto mode, for instance), and Hypothesis for the machine:

    class TestLog(LogCases):
        @pytest.fixture
        async def world(self):
            async with my_world() as world:
                yield world

    TestLikeTheModel = log_machine(my_world).TestCase
"""

import pytest

for _module in (
    "acts",
    "blobs",
    "cache",
    "claims",
    "erasure",
    "fleet",
    "hot",
    "log",
    "machine",
    "shelf",
    "storage",
    "transactions",
    "walks",
):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")

from dalsegno.testing.conformance.blobs import BlobsCases  # noqa: E402 - after the call above, or asserts say nothing
from dalsegno.testing.conformance.cache import CacheCases  # noqa: E402
from dalsegno.testing.conformance.claims import ClaimCases  # noqa: E402
from dalsegno.testing.conformance.erasure import ErasureCases  # noqa: E402
from dalsegno.testing.conformance.fleet import FleetCases  # noqa: E402
from dalsegno.testing.conformance.hot import HotCases  # noqa: E402
from dalsegno.testing.conformance.log import LogCases  # noqa: E402
from dalsegno.testing.conformance.machine import log_machine  # noqa: E402
from dalsegno.testing.conformance.shelf import ShelfCases  # noqa: E402
from dalsegno.testing.conformance.storage import StorageCases  # noqa: E402
from dalsegno.testing.conformance.transactions import TransactionCases  # noqa: E402
from dalsegno.testing.conformance.walks import WalkCases  # noqa: E402
from dalsegno.testing.conformance.worlds import (  # noqa: E402
    BlobsWorld,
    CacheWorld,
    FleetWorld,
    HotWorld,
    LogWorld,
    TransactionWorld,
)

__all__ = [
    "BlobsCases",
    "BlobsWorld",
    "CacheCases",
    "CacheWorld",
    "ClaimCases",
    "ErasureCases",
    "FleetCases",
    "FleetWorld",
    "HotCases",
    "HotWorld",
    "LogCases",
    "LogWorld",
    "ShelfCases",
    "StorageCases",
    "TransactionCases",
    "TransactionWorld",
    "WalkCases",
    "log_machine",
]
