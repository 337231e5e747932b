"""What holds for all tests: where their files are, and how hard the property tests look.

That is `quick` by default, `soak` with CIVICNODE_TEST_PROFILE=soak.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.directories import temporary_directory

settings.register_profile("quick", max_examples=60, deadline=None, print_blob=True)
settings.register_profile(
    "soak", max_examples=1_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("CIVICNODE_TEST_PROFILE", "quick"))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is room: a busy disk takes a second for a flush, and who is killed alone cannot tell.

    Nodes that a whole module shares, and those of tests/cli/test_end_to_end.py, are on the disk.
    """
    with temporary_directory() as directory:
        yield Path(directory)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that what is left to share at the end is short."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/system/"))
