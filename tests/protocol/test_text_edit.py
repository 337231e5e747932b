from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.encoding import encode
from protocol.errors import EditFault
from protocol.limits import STRUCTS_PER_UPDATE_MAX
from protocol.text_edit import OPS_MAX, TextEdit, diff, is_edit, read_edit, spliced
from protocol.weave import Splice
from tests.protocol.growth import cpu_s, grows_in_proportion

VERSION = "0123456789abcdef"
texts = st.text(alphabet="ab 😀\n", max_size=20)
lists = st.lists(st.integers(0, 3).map(encode), max_size=12)


def read(*ops: Any, is_text: bool = True, **more: Any) -> TextEdit:
    return read_edit({"ops": list(ops), "base_version": VERSION, **more}, is_text=is_text)


def faults(given: Any, *, is_text: bool = True) -> dict[str, str]:
    with pytest.raises(EditFault) as caught:
        read_edit(given, is_text=is_text)
    return caught.value.details


@given(st.data(), texts)
def test_operations_say_what_they_make_of_a_text(data: st.DataObject, text: str) -> None:
    ops: list[dict[str, Any]] = []
    expected, place = "", 0
    for _ in range(data.draw(st.integers(0, 6))):
        count = data.draw(st.integers(1, 4))
        match data.draw(st.sampled_from(["retain", "delete", "insert"])):
            case "insert":
                more = data.draw(st.text(alphabet="xy😀", min_size=1, max_size=3))
                ops.append({"insert": more})
                expected += more
            case word if place + count <= len(text):
                ops.append({word: count})
                expected += text[place : place + count] if word == "retain" else ""
                place += count
    edit = read(*ops)
    assert spliced(text, edit.splices) == expected + text[place:]
    assert edit.reach == place and edit.base_version == VERSION
    assert all(a.at + a.delete < b.at for a, b in pairwise(edit.splices))


def test_operations_on_a_list_insert_elements() -> None:
    edit = read({"retain": 1}, {"insert": [1, {"a": None}]}, {"insert": ["x"]}, {"delete": 2}, is_text=False)
    assert edit.splices == (Splice(1, 2, [encode(1), encode({"a": None}), encode("x")]),)


def test_every_fault_is_named() -> None:
    assert faults({}) == {
        "ops": f"Must be a list of at most {OPS_MAX} operations",
        "base_version": "This field is required",
    }
    found = faults(
        {
            "ops": [
                {"retain": 0}, {"retain": True}, {"retain": 1.0}, {"delete": -1}, {"keep": 1}, 5,
                {"insert": ""}, {"insert": 5}, {"insert": "\ud800"}, {"insert": "x", "delete": 1}, {},
            ],
            "base_version": 7,
            "mode": "x",
        }
    )  # fmt: skip
    assert set(found) == {
        "mode", "base_version", *(f"ops[{n}]" for n in (0, 1, 2, 3, 4, 5, 9, 10)),
        *(f"ops[{n}].insert" for n in (6, 7, 8)),
    }  # fmt: skip
    assert set(
        faults(
            {"ops": [{"insert": "x"}, {"insert": []}, {"insert": [b""]}], "base_version": "x"}, is_text=False
        )
    ) == {f"ops[{n}].insert" for n in range(3)}
    assert len(faults({"ops": [{}] * OPS_MAX, "base_version": "x"})) < 30


def test_an_edit_makes_no_more_insertions_than_an_update_may_hold() -> None:
    ops = [{"insert": "x"}, {"retain": 1}] * STRUCTS_PER_UPDATE_MAX
    assert len(read(*ops).splices) == STRUCTS_PER_UPDATE_MAX
    assert "ops" in faults({"ops": [*ops, {"insert": "x"}], "base_version": VERSION})
    assert "ops" in faults({"ops": [{"retain": 1}] * (OPS_MAX + 1), "base_version": VERSION})
    assert len(read(*[{"insert": "x"}] * OPS_MAX).splices) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"ops": 1}, True),
        ({"ops": [], "x": ""}, True),
        ({}, False),
        ("ops", False),
        (["ops"], False),
        (None, False),
    ],
)
def test_an_edit_is_told_from_a_value(value: Any, expected: bool) -> None:
    assert is_edit(value) is expected


@given(texts | lists, st.data())
def test_a_difference_makes_the_new_of_the_old(old: Any, data: st.DataObject) -> None:
    new = data.draw(texts if isinstance(old, str) else lists)
    splices = diff(old, new)
    assert spliced(old, splices) == new
    assert all(a.at + a.delete < b.at for a, b in pairwise(splices))
    assert sum(s.delete + len(s.insert or "") for s in splices) == _distance(old, new)


def _distance(old: Any, new: Any) -> int:
    """Fewest insertions and deletions, by the textbook."""
    row = list(range(len(new) + 1))
    for n, item in enumerate(old, 1):
        above, row = row, [n]
        for m, other in enumerate(new, 1):
            row.append(above[m - 1] if item == other else 1 + min(above[m], row[m - 1]))
    return row[-1]


def test_no_difference_is_nothing() -> None:
    assert diff("same", "same") == [] and diff([], []) == [] and diff("", "") == []


def test_words_that_changed_all_over_a_long_text_are_found_one_by_one() -> None:
    def took_s(count: int) -> float:
        """What it takes to find two hundred changes among that many words."""
        random = Random(1)
        words = [f"word{random.randrange(1_000)}" for _ in range(count)]
        old = " ".join(words)
        for _ in range(200):
            words[random.randrange(len(words))] = "changed"
        new = " ".join(words)
        splices: list[Splice] = []
        seconds = cpu_s(lambda: splices.extend(diff(old, new)))
        assert spliced(old, splices) == new and len(splices) > 150
        return seconds

    assert grows_in_proportion(took_s, 5_000)


def test_texts_that_have_nothing_in_common_are_replaced_at_once() -> None:
    def took_s(count: int) -> float:
        random = Random(1)
        old, new = ("".join(random.choices("abcdefgh", k=count)) for _ in range(2))
        splices: list[Splice] = []
        seconds = cpu_s(lambda: splices.extend(diff(old, new)))
        assert spliced(old, splices) == new and len(splices) == 1
        return seconds

    assert grows_in_proportion(took_s, 50_000)
