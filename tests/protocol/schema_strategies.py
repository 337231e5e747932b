"""Random models, values and filters for property tests of schema, query and index.

Room: hypothesis strategies only. Values are drawn from small pools beside the
wide ones, so that equal values, ties and matches happen.
"""

import string
from typing import Any

from hypothesis import strategies as st

from protocol.query import Kind, Op, kind_of
from protocol.schema import Field, FieldType, Model, model_id
from protocol.schema_field import SCALAR_TYPES

TYPES: list[FieldType] = [kind for kind in FieldType if kind is not FieldType.FILE]
OPTIONS = ("TODO", "IN_PROGRESS", "DONE", "ẞtraße", 'quo"te;d, | x')

# Characters that fold, separate, quote or mean something to LIKE; KELVIN SIGN and LONG S fold to ASCII.
ODD = "aAbBkKsSéÉßſKıİΣς%_\\\0;|,:\"' 5"
names = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True).filter(
    lambda name: name not in ("id", "version", "created_at", "updated_at", "created_by")
)
texts = st.one_of(
    st.sampled_from(["", "a", "A", "ab", "5", "true", "null", "é", "É", "ss", "ß", "100%", "a_b"]),
    st.text(alphabet=ODD, max_size=6),
    st.text(max_size=12),
)
integers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**31]),
    st.integers(-(2**63), 2**63 - 1),
)
floats = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1.5, 0.1, 1e16, 9007199254740992.0, 1e300, 5e-324, -1.5]),
    st.floats(allow_nan=False, allow_infinity=False),
)
numbers = st.one_of(integers, floats)
dates = st.one_of(
    st.sampled_from(["2023-12-31", "2024-01-01"]), st.dates().map(lambda day: day.isoformat().zfill(10))
)
datetimes = st.one_of(
    st.sampled_from(["2023-12-31T00:00:00.000Z", "2023-12-31T23:59:59.999Z"]),
    st.datetimes().map(lambda moment: moment.isoformat(timespec="milliseconds") + "Z"),
)
ids = st.text(alphabet=string.ascii_letters + string.digits + "_.:~-", min_size=1, max_size=12)
scalars = st.one_of(texts, numbers, st.booleans())
json_values = st.recursive(
    st.one_of(st.none(), scalars),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
anything = st.one_of(
    st.none(),
    scalars,
    st.integers(),
    st.floats(),
    st.binary(max_size=4),
    st.characters(categories=["Cs"]),
    st.recursive(
        st.one_of(st.none(), scalars, st.binary(max_size=4), st.floats()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.one_of(texts, st.integers()), inner, max_size=3),
            st.tuples(inner),
        ),
        max_leaves=6,
    ),
)

_BY_TYPE: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.STRING: texts,
    FieldType.INTEGER: integers,
    FieldType.COUNTER: integers,
    FieldType.NUMBER: numbers,
    FieldType.BOOLEAN: st.booleans(),
    FieldType.DATE: dates,
    FieldType.DATETIME: datetimes,
    FieldType.ENUM: st.sampled_from(OPTIONS),
    FieldType.JSON: json_values.filter(lambda value: value is not None),
    FieldType.SET: st.lists(scalars, max_size=4),
    FieldType.REFERENCE: ids,
    FieldType.TEXT: texts,
    FieldType.ARRAY: st.lists(json_values, max_size=4),
}


def posted_value(field: Field) -> st.SearchStrategy[Any]:
    """A value that a client may give an unbounded field."""
    return _BY_TYPE[field.type]


@st.composite
def models(draw: st.DrawFn, types: list[FieldType] = TYPES) -> Model:
    """A model of one to six fields, some of them indexed."""
    fields = {}
    for name in draw(st.lists(names, min_size=1, max_size=6, unique=True)):
        kind = draw(st.sampled_from(types))
        fields[name] = Field(
            name,
            kind,
            indexed=kind in SCALAR_TYPES and draw(st.booleans()),
            options=OPTIONS if kind is FieldType.ENUM else (),
        )
    return Model(model_id("default", "Thing"), "default", "Thing", fields)


@st.composite
def records(draw: st.DrawFn, model: Model) -> dict[str, Any]:
    """Stored values of a valid record, often with gaps."""
    posted = {
        name: draw(posted_value(field)) for name, field in model.fields.items() if draw(st.integers(0, 3))
    }
    values, faults = model.check_create(posted)
    assert not faults, faults
    return values


def quoted(value: Any) -> str:
    """A value as a filter writes it, in quotes."""
    text = str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else repr(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def conditions(draw: st.DrawFn, model: Model, pool: list[dict[str, Any]]) -> str:
    """One condition on a random field, its values often those of a record in `pool`."""
    filterable = [name for name, field in model.fields.items() if kind_of(name, model) is not Kind.JSON]
    name = draw(st.sampled_from([*filterable, "id"]))
    field = model.fields.get(name, Field("id", FieldType.STRING))
    kind = kind_of(name, model)
    equality = [Op.EQ, Op.NE, Op.IN, Op.NIN]
    operators = [*equality, Op.LIKE] if field.type is FieldType.ENUM else list(Op)
    if kind in (Kind.SET, Kind.BOOLEAN):
        operators = equality
    elif kind in (Kind.INTEGER, Kind.NUMBER):
        operators = [op for op in Op if op is not Op.LIKE]
    op = draw(st.sampled_from(operators))
    known = [record[name] for record in pool if record.get(name) is not None]
    values = st.one_of(st.sampled_from(known), posted_value(field)) if known else posted_value(field)
    if kind is Kind.SET:
        items = [item for items in known for item in items]
        values = st.one_of(st.sampled_from(items), scalars) if items else scalars
    if op is Op.LIKE:
        values = st.one_of(values, texts).map(lambda text: _maybe_wild(text, len(text) % 4))
    many = draw(st.lists(values, min_size=1, max_size=3 if op in (Op.IN, Op.NIN) else 1))
    written = [draw(st.sampled_from([quoted(value), _bare(value)])) for value in many]
    return f"{name}:{op}:{';'.join(written)}"


def _maybe_wild(text: str, how: int) -> str:
    """The text with its head, its tail, both or its middle replaced by `%`."""
    return [text[1:-1].join("%%"), f"{text[: len(text) // 2]}%", f"%{text[1:]}", f"{text[:1]}%{text[-1:]}"][
        how
    ]


def _bare(value: Any) -> str:
    """The value without quotes where that means the same."""
    if isinstance(value, str):
        plain = value and value.strip() == value and not set(value) & set(',|;"')
        return value if plain else quoted(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


@st.composite
def filters(draw: st.DrawFn, model: Model, pool: list[dict[str, Any]]) -> str:
    """A filter of up to three groups of up to three conditions."""
    groups = draw(st.lists(st.lists(conditions(model, pool), min_size=1, max_size=3), min_size=1, max_size=3))
    return "|".join(",".join(group) for group in groups)
