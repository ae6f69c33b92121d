"""The fixture ``tidegate_broker``, which pytest finds by its entry point; only pytest imports this."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tidegate.testing import FakeBroker


@pytest.fixture
def tidegate_broker() -> Iterator[FakeBroker]:
    """A broker in memory, in place of every broker and bridge, for one test (``tidegate.testing``)."""
    from tidegate.testing import FakeBroker  # noqa: PLC0415 - loaded for the tests that ask for it

    with FakeBroker() as broker:
        yield broker
