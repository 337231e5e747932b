from collections.abc import Iterator

import pytest

from tests.node.fakes import FakeNode


@pytest.fixture
def node() -> Iterator[FakeNode]:
    made = FakeNode()
    yield made
    made.close()
