"""Records out of files, whatever their format and wherever the chunks end."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.reading import Format, Unreadable, open_source
from node.services import record_files as reading

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
records = st.lists(st.dictionaries(st.text(), values, max_size=4), min_size=1, max_size=8)


def read(path: Path) -> list[dict[str, Any]]:
    return [record for _, record in open_source(path)]


@given(records=records, chunk_chars=st.integers(1, 40), indent=st.sampled_from([None, 1]))
def test_a_json_array_reads_the_same_however_it_is_cut(
    records: list[dict[str, Any]],
    chunk_chars: int,
    indent: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("cut") / "records.json"
    path.write_text(json.dumps(records, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "CHUNK_CHARS", chunk_chars)
        assert read(path) == records


@given(records=records)
def test_ndjson_reads_what_was_written(
    records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "records.txt"
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n\n")
    assert open_source(path).format is Format.NDJSON
    assert read(path) == records


@given(text=st.text(alphabet='[]{}",: \n1aN\\'))
def test_no_text_makes_the_reader_raise_anything_but_unreadable(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in ("x.json", "x.csv", "x.ndjson", "x"):
        path = tmp_path_factory.mktemp("odd") / name
        path.write_text(text)
        try:
            read(path)
        except Unreadable:
            pass


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1}, {"a": }]', "record 2: not valid JSON"),
        ('[{"a": 1}', "after record 1: a comma or the end"),
        ('[{"a": 1}] x', "after record 1: there is text after the array"),
        ('[{"a": 1} {"a": 2}]', "after record 1: a comma or the end"),
        ('[{"a": 1},]', "record 2: not valid JSON"),
        ("[1]", "record 1: a record is a JSON object"),
        ('[{"a": NaN}]', "record 1: NaN is not a JSON value"),
        ('[{"a": ' + "[" * 100_000 + "]" * 100_000 + "}]", "record 1: nested too deeply"),
        ('{"a": 1}\n{"a": 2', "line 2: not valid JSON"),
        ('{"a": 1}\n[2]', "line 2: a record is a JSON object"),
        ("a,b\n1,2\n1,2,3\n", "line 3: 3 cells under 2 columns"),
        ("a,b,a\n1,2,3\n", "line 1: two columns are called 'a'"),
        ('a,b\n1,"2\n', "unexpected end of data"),
        ("", "is empty"),
    ],
)
def test_a_damaged_file_is_named_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "records"
    path.write_text(text)
    with pytest.raises(Unreadable) as caught:
        read(path)
    assert words in caught.value.message


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.csv"
    path.write_bytes(b"a,b\n1,\xe9\n")
    with pytest.raises(Unreadable, match="not UTF-8"):
        read(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_as_spreadsheets_write_it(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "records.csv"
    rows = [["name", "note"], ["Zoë", '"a""b\nc"'], ["", "x"], ["short"]]
    path.write_text(
        "\r\n".join(delimiter.join(row) for row in rows) + "\r\n\r\n", encoding="utf-8-sig", newline=""
    )
    assert list(open_source(path)) == [
        ("line 3", {"name": "Zoë", "note": 'a"b\nc'}),
        ("line 4", {"note": "x"}),
        ("line 5", {"name": "short"}),
    ]
