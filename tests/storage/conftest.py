"""What the tests of storage share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.kit import temporary_directory

pytest.register_assert_rewrite("tests.storage.contract")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is room: a busy disk takes a second for a flush, and no test here can tell."""
    with temporary_directory() as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def module_path() -> Iterator[Path]:
    """The same for what all tests of a module share."""
    with temporary_directory() as directory:
        yield Path(directory)
