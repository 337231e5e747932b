"""Models as definitions: read, written, refused and changed."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import ModelFault
from protocol.schema import Field, FieldType, IndexSpec, Model, evolve, model_id, parse_definition
from protocol.schema_field import SCALAR_TYPES
from protocol.schema_rules import Validator
from protocol.schema_strategy import STRATEGIES
from tests.protocol.schema_strategies import json_values, models

TASK: dict[str, Any] = {
    "name": "Task",
    "fields": [
        {"name": "title", "type": "string", "required": True},
        {"name": "description", "type": "string", "required": False},
        {"name": "due_date", "type": "date", "required": True},
        {"name": "status", "type": "enum", "options": ["TODO", "IN_PROGRESS", "DONE"], "default": "TODO"},
    ],
}


def task(**changes: Any) -> Model:
    return parse_definition({**TASK, **changes}, application="default")


def faults_of(definition: Any, application: str = "default") -> dict[str, str]:
    with pytest.raises(ModelFault) as raised:
        parse_definition(definition, application=application)
    return raised.value.details


def with_field(**attributes: Any) -> dict[str, Any]:
    return {"name": "M", "fields": [{"name": "f", **attributes}]}


def test_the_definition_of_the_api_documents_is_accepted() -> None:
    model = task()
    assert model.id == model_id("default", "Task")
    assert list(model.fields) == ["title", "description", "due_date", "status"]
    assert model.conflict_strategy == "crdt"
    values, faults = model.check_create({"title": "Buy milk", "due_date": "2023-12-31"})
    assert (values, faults) == ({"title": "Buy milk", "due_date": "2023-12-31", "status": "TODO"}, {})


def test_a_model_id_follows_from_application_and_name() -> None:
    assert model_id("default", "Task") == model_id("default", "Task")
    assert model_id("default", "Email-Thread").startswith("email_thread_")
    assert len({model_id("default", "Task"), model_id("other", "Task"), model_id("default", "task")}) == 3


def test_fields_and_indexes_may_be_given_as_define_model_does() -> None:
    model = task(
        fields={"email": {"type": "string"}, "lastActive": "datetime"},
        indexes=[{"key": {"email": 1}, "unique": True}, {"key": {"lastActive": -1}}],
    )
    assert model.fields["lastActive"].type is FieldType.DATETIME
    assert model.indexes == (IndexSpec((("email", 1),), True), IndexSpec((("lastActive", -1),), False))


def test_every_fault_of_a_definition_is_named_at_once() -> None:
    faults = faults_of(
        {
            "name": "1st",
            "colour": "red",
            "fields": [
                {"name": "ID", "type": "string"},
                {"name": "a", "type": "file"},
                {"name": "b", "type": "enum"},
                {"name": "c", "type": "integer", "min": 5, "max": 3, "default": "x"},
                {"name": "C", "type": "string"},
                {"type": "blob", "required": "yes"},
                "d",
                {"name": "e", "type": "string", "encrypted": True, "merge": "union", "colour": 1},
                {"name": "g", "type": "json", "unique": True, "indexed": True, "min": 1, "pattern": "x"},
            ],
            "indexes": [{"key": {"zz": 1}}, {"key": {"c": 2}}, {"key": {"g": 1}}, {"key": {}}],
            "conflict_strategy": "newest",
            "permissions": {"read": "everyone", "fly": "owner"},
            "plural": "two words",
            "validators": [{"expression": "size(zz) >", "message": "", "name": "x"}, "y"],
        }
    )
    assert set(faults) == {
        "name",
        "colour",
        "fields[0].name",
        "fields.a.type",
        "fields.b.options",
        "fields.c.min",
        "fields.c.default",
        "fields[4].name",
        "fields[5].name",
        "fields[5].type",
        "fields[5].required",
        "fields[6]",
        "fields.e.merge",
        "fields.e.colour",
        "fields.g.unique",
        "fields.g.indexed",
        "fields.g.min",
        "fields.g.pattern",
        "indexes[0].key.zz",
        "indexes[1].key.c",
        "indexes[2].key.g",
        "indexes[3].key",
        "conflict_strategy",
        "permissions.read",
        "permissions.fly",
        "plural",
        "validators[0].expression",
        "validators[0].message",
        "validators[0].name",
        "validators[1]",
    }
    assert faults["conflict_strategy"] == (
        "Invalid option. Must be one of: crdt, lww, merge, version_vector, three_way, manual,"
        " or a plugin's as name@hash"
    )
    assert (
        faults["fields.e.merge"] == "union does not apply to a string field. Must be one of: max, min, concat"
    )
    assert faults["fields.a.type"].startswith("The type file is not offered yet")


@pytest.mark.parametrize(
    ("definition", "where"),
    [
        (None, "definition"),
        ([], "definition"),
        ({}, "name"),
        ({}, "fields"),
        ({"name": "M", "fields": []}, "fields"),
        ({"name": "M", "fields": "x"}, "fields"),
        ({"name": "M", "fields": [{"name": f"f{n}", "type": "string"} for n in range(257)]}, "fields"),
        ({"name": "$account", "fields": {"a": "string"}}, "name"),
        ({"name": "x" * 64, "fields": {"a": "string"}}, "name"),
        ({"name": "M", "fields": {"a" * 64: "string"}}, f"fields.{'a' * 64}.name"),
        ({"name": "M", "fields": {"a": "string"}, "application_id": "other"}, "application_id"),
        ({"name": "M", "fields": {"a": "string"}, "indexes": {}}, "indexes"),
        (with_field(type="string", min=-1), "fields.f.min"),
        (with_field(type="string", max=1.5), "fields.f.max"),
        (with_field(type="string", pattern="(?=a)"), "fields.f.pattern"),
        (with_field(type="string", pattern="x" * 1025), "fields.f.pattern"),
        (with_field(type="string", pattern="^a", default="b"), "fields.f.default"),
        (with_field(type="date", min="yesterday"), "fields.f.min"),
        (with_field(type="counter", min=1), "fields.f.min"),
        (with_field(type="enum", options=["a", "a"]), "fields.f.options"),
        (with_field(type="enum", options=[""]), "fields.f.options"),
        (with_field(type="enum", options=["a"], default="b"), "fields.f.default"),
        (with_field(type="string", options=["a"]), "fields.f.options"),
        (with_field(type="string", model="Task"), "fields.f.model"),
        (with_field(type="boolean", unique=True), "fields.f.unique"),
        (with_field(type="json", default="x" * 300_000), "definition"),
    ],
)
def test_a_bad_definition_is_refused_where_the_fault_lies(definition: Any, where: str) -> None:
    assert where in faults_of(definition)


def test_a_stored_definition_may_have_a_builtin_name() -> None:
    account = Model("i", "a", "$account", {"email": Field("email", FieldType.STRING, unique=True)})
    read = Model.from_definition(account.to_definition())
    assert (read.name, read.fields) == (account.name, account.fields)


def test_a_definition_that_was_read_back_can_be_posted_again() -> None:
    model = task(
        indexes=[{"key": {"status": 1, "due_date": -1}}], plural="tasks", permissions={"read": "public"}
    )
    assert parse_definition(model.to_definition(), application="default") == model


def test_reading_a_definition_back_does_not_compile_its_patterns() -> None:
    stored = Model("i", "a", "M", {"f": Field("f", FieldType.STRING, pattern="(?=x)", default="y")})
    assert Model.from_definition(stored.to_definition()).fields == stored.fields


@settings(deadline=None)
@given(data=st.data())
def test_a_definition_survives_the_way_through_json_with_sorted_keys(data: st.DataObject) -> None:
    drawn = data.draw(models())
    ordered = [f.name for f in drawn.fields.values() if f.type in SCALAR_TYPES]
    indexes = []
    for _ in range(data.draw(st.integers(0, 3)) if ordered else 0):
        names = data.draw(st.lists(st.sampled_from(ordered), min_size=1, max_size=3, unique=True))
        ways = [data.draw(st.sampled_from([1, -1])) for _ in names]
        indexes.append(IndexSpec(tuple(zip(names, ways, strict=True)), data.draw(st.booleans())))
    model = Model(
        drawn.id,
        drawn.application,
        drawn.name,
        drawn.fields,
        tuple(dict.fromkeys(indexes)),
        data.draw(st.sampled_from([*STRATEGIES, "closest@0123456789abcdef"])),
        {"read": ["owner", "role:editor"], "create": "public"},
        "things",
        (Validator("record != null", "Must be there"),) if data.draw(st.booleans()) else (),
        "user",
        data.draw(st.integers(0, 2**41)),
        data.draw(st.integers(0, 2**41)),
        "v1",
    )
    written = model.to_definition()
    assert Model.from_definition(written) == model
    assert Model.from_definition(_with_sorted_keys(written)) == model


def _with_sorted_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_sorted_keys(value[key]) for key in sorted(value)}
    return [_with_sorted_keys(item) for item in value] if isinstance(value, list) else value


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_definition_raises_anything_but_its_faults(data: st.DataObject) -> None:
    """A good definition with one place in it replaced by anything at all."""
    definition = copy.deepcopy(
        data.draw(st.sampled_from([task(indexes=[{"key": {"status": 1}}]).to_definition(), TASK]))
    )
    place: Any = definition
    while True:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        if not (isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    for read in (_post, Model.from_definition):
        try:
            model = read(definition)
        except ModelFault as fault:
            assert fault.details
        else:
            model.check_create({"title": "x"})


def _post(definition: Any) -> Model:
    return parse_definition(definition, application="default")


@given(json_values)
def test_no_json_is_mistaken_for_a_definition_with_a_crash(body: Any) -> None:
    with pytest.raises(ModelFault):
        parse_definition(body, application="default")
    with pytest.raises(ModelFault):
        Model.from_definition(body)


def test_a_model_may_grow() -> None:
    old = task()
    new = task(
        fields=[
            {**TASK["fields"][0], "required": False},
            *TASK["fields"][1:3],
            {**TASK["fields"][3], "options": ["TODO", "IN_PROGRESS", "DONE", "DROPPED"]},
            {"name": "priority", "type": "integer", "indexed": True},
            {"name": "colour", "type": "string", "required": True, "default": "red"},
        ],
        indexes=[{"key": {"status": 1}}],
        permissions={"read": "public"},
    )
    assert evolve(old, new) == {}
    assert evolve(old, old) == {}


def test_a_model_may_not_shrink_and_every_reason_is_named() -> None:
    old = parse_definition(
        {
            "name": "M",
            "fields": {
                "gone": "string",
                "other": "string",
                "need": "string",
                "low": {"type": "integer", "min": 1, "max": 9},
                "pat": "string",
                "opt": {"type": "enum", "options": ["a", "b"]},
                "ref": {"type": "reference", "model": "Task"},
            },
        },
        application="default",
    )
    new = parse_definition(
        {
            "name": "M",
            "fields": {
                "other": "integer",
                "need": {"type": "string", "required": True},
                "low": {"type": "integer", "min": 2, "max": 8},
                "pat": {"type": "string", "pattern": "^a"},
                "opt": {"type": "enum", "options": ["a", "c"]},
                "ref": {"type": "reference", "model": "Project"},
                "added": {"type": "string", "required": True},
            },
        },
        application="default",
    )
    faults = evolve(old, new)
    assert set(faults) == {
        "fields.gone",
        "fields.other.type",
        "fields.need.required",
        "fields.low.min",
        "fields.low.max",
        "fields.pat.pattern",
        "fields.opt.options",
        "fields.ref.model",
        "fields.added.required",
    }
    assert "gone" in faults["fields.gone"]
    assert "from string to integer" in faults["fields.other.type"]


@settings(deadline=None)
@given(data=st.data())
def test_a_change_that_is_allowed_leaves_every_record_valid(data: st.DataObject) -> None:
    def bounded() -> Model:
        low, high = sorted(data.draw(st.tuples(st.integers(-3, 3), st.integers(-3, 3))))
        field = Field(
            "f",
            FieldType.INTEGER,
            required=data.draw(st.booleans()),
            default=data.draw(st.sampled_from([None, low])),
            minimum=data.draw(st.sampled_from([None, low])),
            maximum=data.draw(st.sampled_from([None, high])),
        )
        return Model("m", "a", "M", {"f": field})

    old, new = bounded(), bounded()
    record = data.draw(st.one_of(st.just({}), st.fixed_dictionaries({"f": st.integers(-5, 5)})))
    if not evolve(old, new) and not old.check_record(record):
        assert new.check_record(record) == {}


# -- conflict strategies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [*STRATEGIES, "closest@0123456789abcdef", f"a-b_C@{'0' * 64}"])
def test_a_model_may_have_any_strategy_or_a_plugins_by_name_and_hash(strategy: str) -> None:
    model = task(conflict_strategy=strategy)
    assert model.conflict_strategy == model.rules.strategy == strategy
    assert Model.from_definition(model.to_definition()) == model


@pytest.mark.parametrize(
    "strategy", ["", "CRDT", "closest", "closest@", "@0123456789abcdef", "a@XYZ", 1, ["lww"]]
)
def test_any_other_strategy_is_refused(strategy: Any) -> None:
    assert "conflict_strategy" in faults_of(
        {"name": "M", "fields": {"a": "string"}, "conflict_strategy": strategy}
    )


@pytest.mark.parametrize(
    ("kind", "offered"),
    [
        ("string", {"max", "min", "concat"}),
        ("integer", {"max", "min", "sum"}),
        ("number", {"max", "min", "sum"}),
        ("boolean", {"max", "min"}),
        ("date", {"max", "min"}),
        ("datetime", {"max", "min"}),
        ("enum", {"max", "min"}),
        ("json", {"union", "concat"}),
        ("set", {"union"}),
        ("counter", {"sum"}),
        ("reference", set()),
    ],
)
def test_a_field_may_be_folded_as_its_type_allows(kind: str, offered: set[str]) -> None:
    for merge in ("union", "max", "min", "sum", "concat"):
        attributes: dict[str, Any] = {"type": kind, "merge": merge}
        if kind == "enum":
            attributes["options"] = ["a", "b"]
        definition = {"name": "M", "fields": {"f": attributes}, "conflict_strategy": "merge"}
        if merge in offered:
            model = parse_definition(definition, application="default")
            assert model.fields["f"].merge == merge
            assert set(model.rules.folds) == {"f"}
            assert Model.from_definition(model.to_definition()) == model
        else:
            assert set(faults_of(definition)) == {"fields.f.merge"}


def test_merge_is_refused_under_a_strategy_that_would_not_heed_it() -> None:
    for strategy in STRATEGIES:
        definition = {
            "name": "M",
            "fields": {"f": {"type": "integer", "merge": "max"}},
            "conflict_strategy": strategy,
        }
        if strategy in ("merge", "version_vector", "three_way"):
            parse_definition(definition, application="default")
        else:
            assert faults_of(definition) == {
                "fields.f.merge": "Needs one of these as conflict_strategy: merge, three_way, version_vector"
            }


def test_strategy_and_merge_may_change() -> None:
    old = parse_definition({"name": "M", "fields": {"f": "integer"}}, application="default")
    new = parse_definition(
        {"name": "M", "fields": {"f": {"type": "integer", "merge": "max"}}, "conflict_strategy": "merge"},
        application="default",
    )
    assert evolve(old, new) == evolve(new, old) == {}
