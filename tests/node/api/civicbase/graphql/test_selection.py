"""What is selected of records, against a plain reading of the same JSON."""

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from graphql import FieldNode, OperationDefinitionNode, parse
from hypothesis import given
from hypothesis import strategies as st

from node.api.civicbase.graphql.resolvers import make_resolve
from node.api.civicbase.graphql.schema import RecordType, build_schema
from node.api.civicbase.graphql.selection import Collected, compile_selection
from node.services.records import Rendered
from protocol.schema import parse_definition

TASK = parse_definition(
    {
        "name": "Task",
        "fields": [
            {"name": "title", "type": "string"},
            {"name": "status", "type": "enum", "options": ["TODO", "in progress"]},
            {"name": "more", "type": "json"},
            {"name": "parent", "type": "reference", "model": "Task"},
        ],
    },
    application="default",
)
TYPE = build_schema([TASK], make_resolve([TASK], lambda: "")).records["Task"]
MEMBERS = ["id", "title", "status", "more", "parent_id", "version", "strategy_missing", "__typename"]


class Shelf:
    """The records that may be read, and which were asked for."""

    def __init__(self, documents: dict[str, dict[str, Any]]) -> None:
        self.documents = documents
        self.asked: list[list[str]] = []

    def readable(self, type: RecordType, ids: Sequence[str]) -> dict[str, Rendered]:
        self.asked.append(list(ids))
        return {id: rendered(self.documents[id]) for id in ids if id in self.documents}

    def opened(self, type: RecordType, document: Rendered) -> Rendered:
        return document


def rendered(document: dict[str, Any]) -> Rendered:
    return Rendered(json.dumps(document).encode(), "v", "u")


def collected(text: str) -> Collected:
    """The fields of `{ … }`, by response name."""
    (operation,) = parse(text).definitions
    assert isinstance(operation, OperationDefinitionNode)
    return _by_name(operation.selection_set.selections)


def _by_name(selections: Any) -> Collected:
    fields = [node for node in selections if isinstance(node, FieldNode)]
    return {(node.alias or node.name).value: [SimpleNamespace(node=node)] for node in fields}


def collect(type: RecordType, details: Sequence[Any]) -> Collected:
    return _by_name(details[0].node.selection_set.selections)


def plainly(document: dict[str, Any], wanted: list[tuple[str, str]]) -> dict[str, Any]:
    source = {"parent_id": document.get("parent"), "__typename": "Task"}
    source["status"] = {"in progress": "in_progress"}.get(document["status"], document["status"])
    return {alias: source.get(name, document.get(name)) for alias, name in wanted}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["a", "b", "c"]),
        "title": st.none() | st.text(max_size=8),
        "status": st.sampled_from([None, "TODO", "in progress"]),
        "more": VALUES,
        "parent": st.sampled_from([None, "a", "b", "gone"]),
        "version": st.just("v1"),
    },
    optional={"strategy_missing": st.just(True)},
)
WANTED = st.lists(
    st.tuples(st.sampled_from(["x", "y1", "z_"]), st.sampled_from(MEMBERS)),
    min_size=1,
    max_size=5,
    unique_by=lambda pair: pair[0],
)


@given(st.lists(DOCUMENTS, max_size=6), WANTED)
def test_members_come_as_they_are_under_the_names_that_were_asked_for(
    documents: list[dict[str, Any]], wanted: list[tuple[str, str]]
) -> None:
    fields = collected("{" + " ".join(f"{alias}: {name}" for alias, name in wanted) + "}")
    made = compile_selection(TYPE, fields, collect).render(list(map(rendered, documents)), Shelf({}))
    assert [list(json.loads(each).items()) for each in made] == [
        list(plainly(document, wanted).items()) for document in documents
    ]


@given(st.lists(DOCUMENTS, max_size=6), st.lists(DOCUMENTS, max_size=3))
def test_references_are_read_once_a_level(
    documents: list[dict[str, Any]], shelved: list[dict[str, Any]]
) -> None:
    shelf = Shelf({document["id"]: document for document in shelved})
    fields = collected("{ id parent { title parent { id } } again: parent { id } }")
    made = compile_selection(TYPE, fields, collect).render(list(map(rendered, documents)), shelf)

    def shown(id: str | None) -> dict[str, Any] | None:
        return shelf.documents.get(id or "")

    for document, text in zip(documents, made, strict=True):
        parent = shown(document["parent"])
        grand = parent and shown(parent["parent"])
        assert json.loads(text) == {
            "id": document["id"],
            "parent": parent and {"title": parent["title"], "parent": grand and {"id": grand["id"]}},
            "again": parent and {"id": parent["id"]},
        }
    assert len(shelf.asked) == 3 and all(len(set(ids)) == len(ids) for ids in shelf.asked)


def test_nothing_selected_is_an_empty_object() -> None:
    assert compile_selection(TYPE, {}, collect).render([rendered({}), rendered({})], Shelf({})) == [
        b"{}",
        b"{}",
    ]
