"""Names in GraphQL: valid, one for each thing, and kept by who had them first."""

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from node.api.civicbase.graphql.names import OWN_TYPES, name_models, name_options
from protocol.schema import Model, parse_definition

NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]*")


def model(name: str, at: int = 0, **more: object) -> Model:
    body = {"name": name, "fields": [{"name": "title", "type": "string"}], **more}
    return replace(parse_definition(body, application="default"), created_at_ms=at)


def test_a_model_gives_its_names() -> None:
    ((_, names),) = name_models([model("Task")])
    assert (names.type, names.one, names.many, names.page) == ("Task", "task", "tasks", "tasksPage")
    ((_, names),) = name_models([model("email-thread")])
    assert (names.type, names.one, names.many) == ("Email_thread", "email_thread", "email_threads")
    ((_, names),) = name_models([model("Person", plural="people")])
    assert (names.one, names.many, names.changed) == ("person", "people", "personChanged")
    ((_, names),) = name_models([model("Sheep", plural="sheep")])
    assert (names.one, names.many) == ("sheep", "sheeps")


def test_who_comes_later_takes_nobodys_names() -> None:
    first, second = model("Task", 1), model("task", 2)
    named = {m.name: names for m, names in name_models([second, first])}
    assert named["Task"].many == "tasks"
    assert named["task"].one == second.id and named["task"].many == f"{second.id}s"
    older, page = model("Task", 2), model("TaskPage", 1)
    named = {m.name: names for m, names in name_models([older, page])}
    assert named["TaskPage"].type == "TaskPage" and named["Task"].one == older.id
    ((_, names),) = name_models([model("Query")])
    assert names.type not in OWN_TYPES


@given(
    st.lists(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,6}", fullmatch=True), max_size=12, unique=True),
    st.data(),
)
def test_names_of_models_are_valid_and_nobody_elses(wanted: list[str], data: st.DataObject) -> None:
    plurals = st.none() | st.sampled_from([*wanted, "tasks"]).filter(str.isidentifier)
    models = [model(name, number, plural=data.draw(plurals)) for number, name in enumerate(wanted)]
    named = name_models(models)
    types = [type for each, names in named for type in names.types(each)]
    fields = [name for _, names in named for name in (names.one, names.many, names.page)]
    assert len(set(types)) == len(types) and OWN_TYPES.isdisjoint(types)
    assert len(set(fields)) == len(fields)
    assert all(NAME.fullmatch(name) for name in (*types, *fields))
    assert {each.name: names for each, names in name_models(models[:-1])}.items() <= {
        each.name: names for each, names in named
    }.items()  # the newest changed nothing


def test_options_keep_their_names_where_they_can() -> None:
    given = [
        "TODO",
        "in progress",
        "in-progress",
        "in_progress",
        "2024",
        "true",
        "\u5b8c\u4e86",
        "__x",
        "a_",
        "?!",
        "-",
    ]
    assert name_options(given) == {
        "TODO": "TODO",
        "in progress": "in_progress_",
        "in-progress": "in_progress__",
        "in_progress": "in_progress",
        "2024": "_2024",
        "true": "true_",
        "\u5b8c\u4e86": "u5b8cu4e86",
        "__x": "u__x",
        "a_": "a_",
        "?!": "u__",
        "-": "u_",
    }


@given(st.lists(st.text(min_size=1, max_size=6), max_size=20, unique=True))
def test_options_have_valid_names_of_their_own(options: list[str]) -> None:
    names = name_options(options)
    assert list(names) == options and len(set(names.values())) == len(options)
    for name in names.values():
        assert NAME.fullmatch(name) and not name.startswith("__") and name not in ("true", "false", "null")
