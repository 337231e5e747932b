"""What the tests of storage share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.schema import Model
from tests.directories import temporary_directory
from tests.storage.damage import TASKS
from tests.storage.kit import TASK, Site, create, delete, filled_directory, update

pytest.register_assert_rewrite("tests.storage.contract")


@pytest.fixture(scope="module")
def module_path() -> Iterator[Path]:
    """As `tmp_path`, for what all tests of a module share."""
    with temporary_directory() as directory:
        yield Path(directory)


@pytest.fixture(params=["disk", "memory"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path if request.param == "disk" else None) as site:
        yield site


@pytest.fixture
def model(site: Site) -> Model:
    return site.define(TASK)


@pytest.fixture(scope="module")
def template(module_path: Path) -> Path:
    """A node with two applications, updates, deletes, local records and a few groups, stopped cleanly."""
    directory = module_path / "node"
    with Site(directory) as site:
        model = site.define(TASK)
        other = site.define({**TASK, "name": "Other"}, "second")
        for number in range(TASKS):
            site.create(model, f"t{number}", title=f"task {number}", points=number, tags=["a"], votes=1)
        site.change(*(create(other, f"o{number}", title="x") for number in range(TASKS)))
        site.change(update(model, "t1", title="changed"), delete(model, "t2"), update(model, "t3", votes=5))
        site.group(lambda local: local.put("session", "ann", {"until": 1}))
    return directory


@pytest.fixture(scope="module")
def large(module_path: Path) -> Path:
    """A node whose trees have branches, each commit of one new document."""
    return filled_directory(module_path / "large", tasks=140)
