"""The index answers as the filter language means it: SQLite and Python agree."""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.errors import QueryFault
from protocol.query import Query, parse_aggregation, parse_filter, parse_query
from protocol.schema import Field, FieldType, Model
from protocol.schema_field import SCALAR_TYPES
from storage import index_query
from storage.errors import IndexBehind
from storage.index import Index, Page, Row
from tests.protocol.schema_strategies import TYPES, filters, models, records

SORTABLE = [kind for kind in TYPES if kind in SCALAR_TYPES or kind is FieldType.TEXT]


def filled(model: Model, rows: list[Row]) -> Index:
    index = Index(None)
    index.reset(b"store")
    index.ensure_model(model)
    index.apply([(model, row) for row in rows], [], 1)
    return index


def row(id: str, values: dict[str, Any], at_ms: int = 0, by: str = "ann") -> Row:
    return Row(id, at_ms, at_ms, by, "v", values)


def facts(row: Row) -> dict[str, Any]:
    """A row as `Filter.matches` takes it."""
    return {
        **row.values,
        "id": row.id,
        "created_at": row.created_at_ms,
        "updated_at": row.updated_at_ms,
        "created_by": row.created_by,
    }


def in_order(rows: list[Row], sort: str, descending: bool) -> list[str]:
    """Ids as a query must return them: by value with nulls lowest, then by id."""

    def key(row: Row) -> tuple[Any, ...]:
        value = facts(row).get(sort)
        return (0, row.id) if value is None else (1, value, row.id)

    nulls = [row for row in rows if facts(row).get(sort) is None]
    others = [row for row in rows if facts(row).get(sort) is not None]
    ordered = sorted(nulls, key=key) + sorted(others, key=key)
    return [row.id for row in (reversed(ordered) if descending else ordered)]


def by_cursor(index: Index, model: Model, query: Query) -> list[str]:
    """All ids, one page after the other."""
    ids: list[str] = []
    params = {"per_page": str(query.per_page)}
    for _ in range(1000):
        page = index.query(model, query)
        ids += page.ids
        if page.next_cursor is None:
            return ids
        assert len(page.ids) == query.per_page
        following = parse_query({**params, "cursor": page.next_cursor}, model)
        query = Query(query.filter, following.sort, following.descending, 1, query.per_page, following.cursor)
    raise AssertionError("paging does not end")


@st.composite
def tables(draw: st.DrawFn) -> tuple[Model, list[Row]]:
    model = draw(models())
    values = draw(st.lists(records(model), max_size=8))
    values += draw(st.lists(st.sampled_from(values), max_size=4)) if values else []
    times = st.integers(0, 3)
    return model, [
        Row(f"i{number}", draw(times), draw(times), draw(st.sampled_from(["ann", "bob"])), "v", value)
        for number, value in enumerate(values)
    ]


@settings(
    deadline=None,
    max_examples=max(200, settings().max_examples),  # `make soak` takes its thousand
    suppress_health_check=[HealthCheck.too_slow],
)
@given(data=st.data())
def test_sqlite_and_python_agree_on_every_filter_sort_and_page(data: st.DataObject) -> None:
    model, rows = data.draw(tables())
    text = data.draw(st.one_of(st.none(), filters(model, [row.values for row in rows])))
    fields = [name for name, field in model.fields.items() if field.type in SORTABLE]
    sort = data.draw(st.sampled_from([*fields, "id", "created_at", "updated_at", "created_by"]))
    descending, per_page = data.draw(st.booleans()), data.draw(st.integers(1, 4))
    parsed = None if text is None else parse_filter(text, model)
    matching = [row for row in rows if parsed is None or parsed.matches(facts(row))]
    expected = in_order(matching, sort, descending)
    index = filled(model, rows)
    query = Query(parsed, sort, descending, per_page=per_page)
    assert by_cursor(index, model, query) == expected
    assert index.query(model, query).total == len(expected)
    pages = [
        index.query(model, Query(parsed, sort, descending, page, per_page)).ids
        for page in range(1, len(expected) // per_page + 2)
    ]
    assert list(itertools.chain(*pages)) == expected
    index.close()


NEAR = [
    2**53 - 1,
    2**53,
    2**53 + 1,
    float(2**53),
    2**63 - 1,
    2**63 - 513,
    float(2**63),
    -(2**63),
    -(2.0**63),
    0.1,
]
TRICKY: list[tuple[FieldType, list[Any], list[str]]] = [
    (
        FieldType.STRING,
        [
            "a_c",
            "abc",
            "a\\c",
            "a",
            "a\0",
            "a\0b",
            "A\0B",
            "100%",
            "100",
            "%",
            "_",
            "",
            "\u212a",
            "k",
            "ſ",
            "ß",
            "SS",
        ],
        [
            "a_c",
            "a\\\\c",
            "a\0",
            "a\0%",
            "%\0%",
            "%\\\\%",
            "%_%",
            "_",
            "%",
            "",
            "100%",
            "k",
            "K",
            "s",
            "ss",
            "S%",
        ],
    ),
    (
        FieldType.SET,
        [
            [","],
            ["a", "b"],
            ['a","b'],
            ["a\n"],
            ["\n"],
            [""],
            [],
            [1],
            ["1"],
            [True],
            [1.5],
            ["a", ","],
            [10**16],
        ],
        [",", "a", "b", 'a\\",\\"b', "\n", "a\n", "", "1", "true", "1.5", '\\"', "1.0", "1e16"],
    ),
    (FieldType.NUMBER, NEAR, [repr(value) for value in NEAR]),
    (FieldType.INTEGER, [v for v in NEAR if type(v) is int], [repr(v) for v in NEAR if type(v) is int]),
]


@pytest.mark.parametrize(("kind", "values", "asked"), TRICKY, ids=lambda part: str(part)[:12])
def test_sqlite_and_python_agree_on_tricky_values(
    kind: FieldType, values: list[Any], asked: list[str]
) -> None:
    model = Model("m", "a", "M", {"f": Field("f", kind)})
    rows = [row(f"r{number}", {"f": value}) for number, value in enumerate(values)] + [row("none", {})]
    index = filled(model, rows)
    operators = {
        FieldType.STRING: ["like", "eq", "ne", "gt", "lte", "in"],
        FieldType.SET: ["eq", "ne", "in", "nin"],
    }.get(kind, ["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"])
    for operator, text, marks in itertools.product(operators, asked, ['"', ""]):
        if not marks and (kind is FieldType.STRING or set(text) & set(',;|"\\\n')):
            continue
        parsed = parse_filter(f"f:{operator}:{marks}{text}{marks}", model)
        found = index.query(model, Query(parsed, "id", False, per_page=100)).ids
        assert found == sorted(row.id for row in rows if parsed.matches(facts(row))), parsed


@pytest.fixture(scope="module")
def crowd() -> tuple[Model, list[Row], Index]:
    """3,000 rows: enough for the shortcuts that many matching rows allow."""
    model = Model(
        "crowd",
        "default",
        "Crowd",
        {
            "status": Field("status", FieldType.ENUM, options=("TODO", "DONE", "NEVER"), indexed=True),
            "rank": Field("rank", FieldType.INTEGER, indexed=True),
            "name": Field("name", FieldType.STRING),
        },
    )
    chance = random.Random(7)
    rows = [
        row(
            f"r{number:04}",
            {
                "status": "TODO" if number < 1500 or chance.random() < 0.1 else "DONE",
                **({"rank": chance.randrange(40)} if chance.random() < 0.8 else {}),
                "name": chance.choice(["ann", "Bob", "ÉVE"]),
            },
            at_ms=number // 7,
        )
        for number in range(3000)
    ]
    return model, rows, filled(model, rows)


@pytest.mark.parametrize("sort", ["rank", "created_at", "id", "name"])
@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize(
    "text",
    ["status:eq:TODO", "status:eq:DONE", "name:like:É%,status:ne:NEVER", "rank:lt:20", "status:eq:NEVER"],
)
def test_shortcuts_through_the_sort_order_change_nothing(
    crowd: tuple[Model, list[Row], Index], sort: str, descending: bool, text: str
) -> None:
    model, rows, index = crowd
    parsed = parse_filter(text, model)
    expected = in_order([row for row in rows if parsed.matches(facts(row))], sort, descending)
    assert by_cursor(index, model, Query(parsed, sort, descending, per_page=100)) == expected
    for page in (1, 2, 30):
        ids = index.query(model, Query(parsed, sort, descending, page, 20)).ids
        assert ids == expected[(page - 1) * 20 : page * 20]


def test_a_common_filter_is_answered_from_the_sort_order(crowd: tuple[Model, list[Row], Index]) -> None:
    model, _, index = crowd
    query = Query(parse_filter("status:eq:TODO", model), "rank", per_page=20)
    layout = index._layouts[model.id]
    assert index_query._window_size(layout, query, 21, 1500, 3000) > 0
    assert index_query._window_size(layout, query, 21, 50, 3000) == 0  # few: find them all at once
    by_name = Query(query.filter, "name", per_page=20)
    assert index_query._window_size(layout, by_name, 21, 1500, 3000) == 0  # no index to read in order


def test_a_cursor_goes_on_behind_its_record_whatever_came_and_went() -> None:
    model = Model("m", "a", "M", {"n": Field("n", FieldType.INTEGER)})
    index = filled(model, [row(f"r{n}", {"n": n}) for n in range(6)])
    first = index.query(model, Query(None, "n", False, per_page=2))
    assert (first.ids, first.total) == (["r0", "r1"], 6)
    index.apply([(model, row("r15", {"n": 1})), (model, row("new", {"n": 0}))], [(model.id, "r1")], 2)
    second = parse_query({"cursor": first.next_cursor or "", "per_page": "2"}, model)
    assert index.query(model, second).ids == ["r15", "r2"]


def test_a_cursor_on_a_long_value_finds_its_record_or_says_that_it_is_gone() -> None:
    model = Model("m", "a", "M", {"t": Field("t", FieldType.STRING)})
    rows = [row(f"r{n}", {"t": "x" * 1000 + str(n // 2)}) for n in range(6)]
    index = filled(model, rows)
    assert by_cursor(index, model, Query(None, "t", False, per_page=1)) == [row.id for row in rows]
    cursor = index.query(model, Query(None, "t", False, per_page=2)).next_cursor
    index.apply([], [(model.id, "r1")], 2)
    with pytest.raises(QueryFault):
        index.query(model, parse_query({"cursor": cursor or ""}, model))


def test_a_page_that_is_broken_off_leaves_the_next_one_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit on steps strikes anywhere, also between the statements of one page."""
    model = Model("m", "a", "M", {"n": Field("n", FieldType.INTEGER, indexed=True)})
    rows = [row(f"r{n:02}", {"n": n} if n % 2 else {}) for n in range(60)]
    answers = []
    for steps in range(5, 2000, 45):
        monkeypatch.setattr("storage.index.BRIEF_STEPS_MAX", steps)
        index = Index(str(tmp_path / f"{steps}.db"))
        index.reset(b"store")
        index.ensure_model(model)
        index.apply([(model, row) for row in rows], [], 1)
        first = index.query(model, Query(None, "n", True, per_page=25))
        query = parse_query({"cursor": first.next_cursor or "", "per_page": "25"}, model)
        expected = index.query(model, query)
        answers += [index.query_briefly(model, query) for _ in range(20)]
        assert all(answer in (None, expected) for answer in answers[-20:])
        index.close()
    assert {type(answer) for answer in answers} == {type(None), Page}


def test_a_page_that_takes_a_moment_takes_no_longer_for_being_asked_often(tmp_path: Path) -> None:
    """SQLite counts the steps of a statement over all its runs: that must not count against the later ones."""
    model = Model("m", "a", "M", {"n": Field("n", FieldType.INTEGER)})
    index = Index(str(tmp_path / "index.db"))
    index.reset(b"store")
    index.ensure_model(model)
    index.apply([(model, row(f"r{n:03}", {"n": n})) for n in range(100)], [], 1)
    answers = [index.query_briefly(model, Query(None, "n", True)) for _ in range(40)]
    index.close()
    assert answers == [answers[0]] * 40 and answers[0] is not None


def test_a_filter_may_name_thousands_of_values() -> None:
    model = Model("m", "a", "M", {"s": Field("s", FieldType.SET), "n": Field("n", FieldType.INTEGER)})
    index = filled(model, [row("a", {"s": ["7"], "n": 7}), row("b", {"s": ["x"], "n": 8})])
    many = ";".join(str(n % 100) if n != 7 else "7" for n in range(2500))
    for name in ("s", "n"):
        assert index.query(model, parse_query({"filter": f"{name}:in:{many}"}, model)).total in (1, 2)
    assert index.query(model, parse_query({"filter": f"s:nin:{many}"}, model)).ids == ["b"]


TASK = Model(
    "task",
    "default",
    "Task",
    {
        "status": Field("status", FieldType.STRING),
        "done": Field("done", FieldType.BOOLEAN),
        "n": Field("n", FieldType.INTEGER),
        "x": Field("x", FieldType.NUMBER),
        "day": Field("day", FieldType.DATE),
    },
)
ROWS = [
    row("a", {"status": "TODO", "done": True, "n": 1, "x": 0.5, "day": "2023-01-01"}, 1000),
    row("b", {"status": "TODO", "done": False, "n": 2, "x": 2, "day": "2023-01-02"}, 2000),
    row("c", {"status": "DONE", "n": 2**63 - 1, "x": 1e308}, 3000),
    row("d", {"n": 2**63 - 1, "x": 1e308}, 4000),
]


def aggregate(rows: list[Row] = ROWS, **body: Any) -> list[dict[str, Any]]:
    index = filled(TASK, rows)
    return index.aggregate(TASK, parse_aggregation(body, TASK))


def test_groups_come_in_order_with_their_figures() -> None:
    assert aggregate(
        group_by=["status"],
        aggregations=[
            {"field": "id", "operation": "count", "alias": "tasks"},
            {"field": "day", "operation": "count"},
            {"field": "day", "operation": "max"},
            {"field": "created_at", "operation": "min", "alias": "first"},
        ],
    ) == [
        {"status": None, "tasks": 1, "count_day": 0, "max_day": None, "first": "1970-01-01T00:00:04.000Z"},
        {"status": "DONE", "tasks": 1, "count_day": 0, "max_day": None, "first": "1970-01-01T00:00:03.000Z"},
        {
            "status": "TODO",
            "tasks": 2,
            "count_day": 2,
            "max_day": "2023-01-02",
            "first": "1970-01-01T00:00:01.000Z",
        },
    ]


def test_booleans_group_as_booleans() -> None:
    groups = aggregate(group_by=["done"], aggregations=[{"operation": "count", "alias": "n"}])
    assert groups == [{"done": None, "n": 2}, {"done": False, "n": 1}, {"done": True, "n": 1}]
    assert type(groups[1]["done"]) is bool


def test_sums_stay_exact_until_they_no_longer_fit() -> None:
    body = {
        "aggregations": [{"field": "n", "operation": "sum", "alias": "s"}, {"field": "x", "operation": "avg"}]
    }
    assert aggregate(ROWS, **body, filter="status:eq:TODO") == [{"s": 3, "avg_x": 1.25}]
    assert aggregate(ROWS, **body, filter="id:in:a;c") == [{"s": 2.0**63, "avg_x": 5e307}]
    assert aggregate([], **body) == [{"s": None, "avg_x": None}]


def test_a_figure_that_is_not_finite_is_null() -> None:
    assert aggregate(aggregations=[{"field": "x", "operation": "sum"}]) == [{"sum_x": None}]


def test_grouping_alone_lists_the_groups() -> None:
    assert aggregate(group_by=["status"]) == [{"status": None}, {"status": "DONE"}, {"status": "TODO"}]


def test_too_many_groups_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_query, "GROUPS_MAX", 3)
    assert len(aggregate(group_by=["status"])) == 3
    with pytest.raises(QueryFault):
        aggregate(group_by=["id"])


def test_a_field_that_the_index_lacks_means_that_it_is_behind() -> None:
    index = filled(TASK, ROWS)
    newer = Model("task", "default", "Task", {**TASK.fields, "new": Field("new", FieldType.STRING)})
    for params in ({"filter": "new:eq:a"}, {"sort": "new"}):
        with pytest.raises(IndexBehind):
            index.query(newer, parse_query(params, newer))
    with pytest.raises(IndexBehind):
        index.query(Model("other", "a", "O", {}), Query())
