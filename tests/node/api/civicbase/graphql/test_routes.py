"""Queries and mutations over HTTP, on a real node: the same records, rights and refusals as `/v1/data`."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from node.api.civicbase.graphql.limits import COST_MAX
from protocol.membership import Role
from tests.node.pair import exchange, pair
from tests.node.running import Running, running

PERSON = {
    "name": "Person",
    "plural": "people",
    "fields": [{"name": "name", "type": "string"}],
    "permissions": {"read": ["owner", "role:hr"]},
}
TASK = {
    "name": "Task",
    "fields": [
        {"name": "title", "type": "string", "required": True},
        {"name": "status", "type": "enum", "options": ["TODO", "IN PROGRESS", "DONE"], "default": "TODO"},
        {"name": "due_date", "type": "date"},
        {"name": "at", "type": "datetime"},
        {"name": "tags", "type": "set"},
        {"name": "steps", "type": "array"},
        {"name": "notes", "type": "text"},
        {"name": "votes", "type": "counter"},
        {"name": "size", "type": "integer", "min": 0},
        {"name": "share", "type": "number"},
        {"name": "open", "type": "boolean"},
        {"name": "more", "type": "json"},
        {"name": "owner", "type": "reference", "model": "Person"},
        {"name": "parent", "type": "reference", "model": "Task"},
        {"name": "elsewhere", "type": "reference"},
    ],
}
NOTICE: dict[str, Any] = {
    "name": "Notice",
    "fields": [{"name": "text", "type": "string"}],
    "permissions": {"read": "public"},
}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as node:
        for definition in (PERSON, TASK, NOTICE):
            assert (await node.ask("POST", "/v1/data-models", definition)).status == 201
        yield node


async def run(node: Running, query: str, variables: Any = None, *, token: str | None = None) -> Any:
    """What a document answers, errors and all."""
    answer = await node.ask("POST", "/v1/graphql", {"query": query, "variables": variables}, token=token)
    assert answer.status == 200, answer.text
    return answer.json


async def data(node: Running, query: str, variables: Any = None, *, token: str | None = None) -> Any:
    answer = await run(node, query, variables, token=token)
    assert "errors" not in answer, answer
    return answer["data"]


async def refusal(node: Running, query: str, variables: Any = None, *, token: str | None = None) -> Any:
    """The extensions of the one error that there must be."""
    (error,) = (await run(node, query, variables, token=token))["errors"]
    return error["extensions"]


async def anonymously(node: Running, query: str, **headers: str) -> tuple[int, Any]:
    async with node.http.post(
        node.node.url + "/v1/graphql", json={"query": query}, headers=headers
    ) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_the_example_of_the_seed_works_as_it_stands(node: Running) -> None:
    for title, status, due in (("b", "TODO", "2030-02-01"), ("a", "TODO", "2030-01-01"), ("c", "DONE", None)):
        body = {"id": title, "title": title, "status": status, "due_date": due}
        assert (await node.ask("POST", "/v1/data/Task", body)).status == 201
    query = "query { tasks(filter: { status: TODO }, sort: { field: due_date, order: ASC }) "
    query += "{ id title status due_date } }"
    assert await data(node, query) == {
        "tasks": [
            {"id": "a", "title": "a", "status": "TODO", "due_date": "2030-01-01"},
            {"id": "b", "title": "b", "status": "TODO", "due_date": "2030-02-01"},
        ]
    }


EVERYTHING: dict[str, Any] = {
    "title": "all",
    "status": "IN_PROGRESS",
    "due_date": "2030-01-31",
    "at": "2030-01-31T12:00:00+02:00",
    "tags": ["b", 5, True],
    "steps": [{"do": 1}, None],
    "notes": "wörds",
    "votes": 3,
    "size": 2**63 - 1,
    "share": 0.5,
    "open": False,
    "more": {"a": [1, {"b": None}]},
    "owner": "ada",
    "elsewhere": "x",
}


async def test_every_type_of_field_is_written_and_read(node: Running) -> None:
    await data(node, 'mutation { createPerson(input: { id: "ada", name: "Ada" }) { id } }')
    fields = (
        "id title status due_date at tags steps notes votes size share open more owner { name } owner_id elsewhere "
        "parent { id } parent_id created_by version"
    )
    made = await data(
        node,
        f"mutation ($new: TaskInput!) {{ createTask(input: $new) {{ {fields} __typename }} }}",
        {"new": EVERYTHING | {"id": "all"}},
    )
    shown = made["createTask"]
    plain = (await node.ask("GET", "/v1/data/Task/all")).json
    assert plain["status"] == "IN PROGRESS" and shown.pop("status") == "IN_PROGRESS"
    assert shown.pop("__typename") == "Task" and shown.pop("owner") == {"name": "Ada"}
    assert shown.pop("owner_id") == plain["owner"] and shown.pop("parent_id") is None
    assert shown == {name: plain[name] for name in shown}
    assert (
        shown["size"] == 2**63 - 1 and shown["at"] == "2030-01-31T10:00:00.000Z" and shown["parent"] is None
    )
    literal = await data(
        node,
        'mutation { createTask(input: { title: "x", more: { a: [1, { b: null }], c: NAME }, tags: [1, "1"], '
        "size: 9007199254740993, status: null }) { more tags size status } }",
    )
    assert literal["createTask"]["more"] == {"a": [1, {"b": None}], "c": "NAME"}
    assert literal["createTask"]["size"] == 2**53 + 1 and literal["createTask"]["status"] is None
    by_text = await data(
        node, 'mutation { updateTask(id: "all", input: { size: "9007199254740993" }) { size } }'
    )
    assert by_text == {"updateTask": {"size": 2**53 + 1}}


async def test_lists_filter_sort_and_go_on_as_over_http(node: Running) -> None:
    for number in range(5):
        body = {"id": f"t{number}", "title": f"T{number}", "size": number, "tags": [number % 2]}
        assert (await node.ask("POST", "/v1/data/Task", body)).status == 201
    page = "page: %s, per_page: 2, sort: { field: size, order: ASC }"
    shown = await data(
        node, f"{{ tasksPage({page % 2}) {{ items {{ size }} total page per_page next_cursor }} }}"
    )
    found = shown["tasksPage"]
    assert found["items"] == [{"size": 2}, {"size": 3}]
    assert (found["total"], found["page"], found["per_page"]) == (5, 2, 2)
    rest = await data(node, "query ($c: String) { tasks(cursor: $c) { size } }", {"c": found["next_cursor"]})
    assert rest == {"tasks": [{"size": 4}]}
    for filter, expected in (
        ("size_gt: 1, size_lte: 3", [2, 3]),
        ("size_in: [0, 4]", [0, 4]),
        ("size_nin: [0, 4], size_ne: 2", [1, 3]),
        ('title_like: "%3"', [3]),
        ("tags: 1", [1, 3]),
        ("OR: [{ size: 0 }, { AND: [{ size_gte: 3 }, { size_lt: 4 }] }]", [0, 3]),
        ('created_at_gt: "2000-01-01T00:00:00Z", id_in: ["t1"]', [1]),
        ("status_in: [IN_PROGRESS]", []),
    ):
        shown = await data(
            node, f"{{ tasks(filter: {{ {filter} }}, sort: {{ field: size, order: ASC }}) {{ size }} }}"
        )
        assert [task["size"] for task in shown["tasks"]] == expected, filter
    answer = await refusal(node, '{ tasks(page: 0, per_page: 101, filter: { due_date: "x" }) { id } }')
    assert set(answer["details"]) == {"page", "per_page", "filter"}


async def test_fragments_aliases_and_directives_select(node: Running) -> None:
    await node.ask("POST", "/v1/data/Task", {"id": "up", "title": "Up"})
    await node.ask("POST", "/v1/data/Task", {"id": "t", "title": "T", "parent": "up"})
    query = """query ($no: Boolean = false) {
      one: task(id: "t") { name: title ...P ... @include(if: $no) { id } ... on Task { parent { id } } }
      task(id: "t") { title @skip(if: true) }
      none: task(id: "none") { id }
    }
    fragment P on Task { parent { title } }"""
    assert await data(node, query) == {
        "one": {"name": "T", "parent": {"title": "Up", "id": "up"}},
        "task": {},
        "none": None,
    }


async def test_references_are_followed_for_who_may_read_and_each_record_once(node: Running) -> None:
    _, ann = await node.sign_up("ann")
    _, bob = await node.sign_up("bob")
    await data(node, 'mutation { createPerson(input: { id: "p", name: "Ann" }) { id } }', token=ann)
    for number in range(30):
        body = {"title": str(number), "owner": "p" if number % 3 else "gone"}
        await node.ask("POST", "/v1/data/Task", body)
    read: list[list[str]] = []
    find = node.node.records.rendered_by_id

    def counted(model: Any, ids: list[str]) -> Any:
        read.append(list(ids))
        return find(model, ids)

    node.node.records.rendered_by_id = counted  # type: ignore[assignment,method-assign]
    query = "{ tasks(per_page: 100) { owner { name } owner_id } }"
    seen = (await data(node, query, token=ann))["tasks"]
    assert sum(task["owner"] == {"name": "Ann"} for task in seen) == 20
    assert all(task["owner"] is None for task in seen if task["owner_id"] == "gone")
    assert len([ids for ids in read if "p" in ids]) <= 2  # one for each chunk of records
    assert all(task["owner"] is None for task in (await data(node, query, token=bob))["tasks"])


async def test_lists_show_only_what_may_be_read(node: Running) -> None:
    _, ann = await node.sign_up("ann")
    _, bob = await node.sign_up("bob")
    await data(node, 'mutation { createPerson(input: { id: "a", name: "Ann" }) { id } }', token=ann)
    await data(node, 'mutation { createPerson(input: { id: "b", name: "Bob" }) { id } }', token=bob)
    assert await data(node, "{ people { id } peoplePage { total } }", token=ann) == {
        "people": [{"id": "a"}],
        "peoplePage": {"total": 1},
    }
    assert (await refusal(node, '{ person(id: "b") { id } }', token=ann))["error_code"] == "FORBIDDEN"
    status, answer = await anonymously(node, "{ tasks { id } notices { id } }")
    assert status == 200 and answer["data"] == {"tasks": None, "notices": []}
    assert answer["errors"][0]["extensions"]["error_code"] == "UNAUTHORIZED"
    assert answer["errors"][0]["path"] == ["tasks"]


async def test_encrypted_fields_open_for_their_readers_alone(node: Running) -> None:
    patient = {"name": "Patient", "fields": [{"name": "ssn", "type": "string", "encrypted": True}]}
    assert (await node.ask("POST", "/v1/data-models", patient)).status == 201
    bob_id, bob = await node.sign_up("bob")
    _, ann = await node.sign_up("ann")
    create = 'mutation ($ssn: JSON) { createPatient(input: { id: "p", ssn: $ssn }) { ssn } }'
    made = await data(node, create, {"ssn": {"value": "123", "readers": [bob_id]}}, token=ann)
    assert made == {"createPatient": {"ssn": "123"}}
    for query in ("{ patients { ssn } }", '{ patient(id: "p") { ssn } }'):
        assert "123" in str(await data(node, query, token=bob))
        assert "{'ssn': {'encrypted': True}}" in str(await data(node, query))
    assert "errors" in await run(node, '{ patients(filter: { ssn: "123" }) { id } }', token=bob)


async def test_mutations_refuse_as_the_api_does(node: Running) -> None:
    _, ann = await node.sign_up("ann")
    _, bob = await node.sign_up("bob")
    faults = await refusal(
        node,
        'mutation { createTask(input: { due_date: "2030-02-31", size: -1, owner: "no id" }) { id } }',
        token=ann,
    )
    assert faults["error_code"] == "BAD_REQUEST" and set(faults["details"]) == {
        "title",
        "due_date",
        "size",
        "owner",
    }
    made = await data(node, 'mutation { createTask(input: { id: "t", title: "T" }) { version } }', token=ann)
    version = made["createTask"]["version"]
    update = (
        'mutation ($v: String) { updateTask(id: "t", input: { title: "U" }, version: $v) { title version } }'
    )
    assert (await refusal(node, update, token=bob))["error_code"] == "FORBIDDEN"
    changed = await data(node, update, {"v": version}, token=ann)
    assert changed["updateTask"]["title"] == "U" and changed["updateTask"]["version"] != version
    assert (await refusal(node, update, {"v": version}, token=ann))["error_code"] == "PRECONDITION_FAILED"
    assert (await refusal(node, update.replace('"t"', '"none"'), token=ann))["error_code"] == "NOT_FOUND"
    again = 'mutation { createTask(input: { id: "t", title: "T" }) { version } }'
    assert (await refusal(node, again, token=ann))["error_code"] == "CONFLICT"
    delete = 'mutation { deleteTask(id: "t", version: "%s") { title } }'
    assert (await refusal(node, delete % version, token=ann))["error_code"] == "PRECONDITION_FAILED"
    deleted = await data(node, delete % changed["updateTask"]["version"], token=ann)
    assert deleted == {"deleteTask": {"title": "U"}}
    assert await data(node, '{ task(id: "t") { id } }') == {"task": None}


async def test_texts_are_edited_where_they_were_seen(node: Running) -> None:
    seen = await data(
        node, 'mutation { createTask(input: { id: "t", title: "T", notes: "Buy milk" }) { version } }'
    )
    await data(node, 'mutation { updateTask(id: "t", input: { notes: "Buy milk and bread" }) { id } }')
    update = """mutation ($edits: [FieldEdit!]) {
      updateTask(id: "t", input: { title: "U" }, edits: $edits) { title notes }
    }"""
    edit = {
        "field": "notes",
        "ops": [{"retain": 4}, {"insert": "oat "}],
        "base_version": seen["createTask"]["version"],
    }
    shown = await data(node, update, {"edits": [edit]})
    assert shown == {"updateTask": {"title": "U", "notes": "Buy oat milk and bread"}}
    wrong = [edit | {"field": "title"}, edit | {"ops": [{"retain": -1}]}, edit | {"field": "nope"}]
    details = (await refusal(node, update, {"edits": wrong}))["details"]
    assert set(details) >= {"title", "nope"} and any(where.startswith("notes") for where in details)
    assert await data(node, '{ task(id: "t") { notes } }') == {"task": {"notes": "Buy oat milk and bread"}}


async def test_a_reader_refuses_to_write_in_the_words_of_the_api(tmp_path: Path) -> None:
    async with pair(tmp_path, role=Role.READER) as (host, reader):
        await host.done("POST", "/v1/data-models", NOTICE)
        await exchange(host, reader)
        refused = await reader.ask("POST", "/v1/data/Notice", {"text": "x"})
        assert refused.status == 403
        query = 'mutation { createNotice(input: { text: "x" }) { id } }'
        answer = await reader.done("POST", "/v1/graphql", {"query": query})
        assert answer["data"] == {"createNotice": None}
        assert answer["errors"][0]["message"] == refused.json["error"]
        assert answer["errors"][0]["extensions"] == {"error_code": "FORBIDDEN"}
        assert (await reader.done("POST", "/v1/graphql", {"query": "{ notices { id } }"}))["data"] == {
            "notices": []
        }


async def test_mutations_run_one_after_another_and_one_that_fails_stops_none(node: Running) -> None:
    answer = await run(
        node,
        'mutation { a: createTask(input: { id: "t", title: "1" }) { title } '
        'b: updateTask(id: "t", input: { title: "2" }) { title } c: deleteTask(id: "none") { id } '
        'd: updateTask(id: "t", input: { votes: 1 }) { title votes } }',
    )
    assert [error["path"] for error in answer["errors"]] == [["c"]]
    assert answer["data"] == {
        "a": {"title": "1"},
        "b": {"title": "2"},
        "c": None,
        "d": {"title": "2", "votes": 1},
    }


async def test_the_schema_follows_the_models(node: Running) -> None:
    assert (await data(node, "{ _models }"))["_models"] == ["Notice", "Person", "Task"]
    assert (await run(node, "{ notices { since } }"))["errors"][0]["extensions"][
        "error_code"
    ] == "BAD_REQUEST"
    wider = NOTICE | {"fields": [*NOTICE["fields"], {"name": "since", "type": "date"}]}
    assert (await node.ask("PUT", "/v1/data-models/Notice", wider)).status == 200
    assert await data(node, "{ notices { since } }") == {"notices": []}
    assert (await node.ask("DELETE", "/v1/data-models/Notice")).status == 204
    assert "errors" in await run(node, "{ notices { since } }")
    async with node.http.get(
        node.node.url + "/v1/graphql", params={"query": "{ _models }"}, headers={"X-Application-Id": "empty"}
    ) as answer:
        assert answer.status == 200
    empty = await node.ask("POST", "/v1/graphql", {"query": "{ _models }"}, X_Application_Id="empty")
    assert empty.json == {"data": {"_models": []}}


async def test_documents_that_cannot_run_have_the_status_of_their_media_type(node: Running) -> None:
    response_type = {"Accept": "application/graphql-response+json, application/json;q=0.9"}
    for query in ("{", "{ nope }", "{ a: task(id: 1) { id } ... X }", "subscription { taskChanged { id } }"):
        assert (await anonymously(node, query))[0] == (400 if query.startswith("sub") else 200)
        status, answer = await anonymously(node, query, **response_type)
        assert status == 400 and "data" not in answer
        assert answer["errors"][0]["extensions"]["error_code"] == "BAD_REQUEST"
    url = node.node.url + "/v1/graphql"
    mutation = 'mutation { deleteTask(id: "t") { id } }'
    async with node.http.get(url, params={"query": mutation}) as answer:
        assert answer.status == 405 and answer.headers["Allow"] == "POST"
    async with node.http.get(url, params={"query": "{ tasks { id } }", "variables": "{"}) as answer:
        assert answer.status == 400
        assert (await answer.json())["errors"][0]["extensions"]["details"] == {
            "variables": "Must be an object"
        }
    async with node.http.post(url, data=b"[]", headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 400


async def test_what_would_cost_too_much_is_refused_before_it_is_read(node: Running) -> None:
    below = "parent { parent { parent { parent { parent { id } } } } }"
    roots = " ".join(f"a{n}: tasks(per_page: 100) {{ {below} }}" for n in range(COST_MAX // 600 + 1))
    assert "records" in (await run(node, f"{{ {roots} }}"))["errors"][0]["message"]
    many = await run(node, "query ($v: [ID!]) { tasks(filter: { id_in: $v }) { id } }", {"v": ["x"] * 20_000})
    assert "values" in many["errors"][0]["message"]
    long = await run(node, "{ _models } #" + "x" * 60_000)
    assert "errors" in long


@pytest.mark.parametrize(
    ("setting", "signed_in", "local"), [("nobody", 0, 0), ("signed-in", 1, 1), ("everybody", 1, 1)]
)
async def test_who_is_shown_the_schema(tmp_path: Path, setting: str, signed_in: bool, local: bool) -> None:
    async with running(tmp_path, graphql_introspection=setting) as node:
        shown = "__schema" in str(await run(node, "{ __schema { queryType { name } } }"))
        assert shown == signed_in
        answer = (await anonymously(node, '{ __type(name: "Query") { name } }'))[1]
        assert ("data" in answer) == local
        assert (await node.ask("GET", "/v1/graphql/schema")).status == (200 if signed_in else 403)
        hint = (await run(node, "{ _model }"))["errors"][0]["message"]
        assert ("_models" in hint) == signed_in
        assert (await anonymously(node, "{ __typename }"))[1] == {"data": {"__typename": "Query"}}


async def test_many_at_once_load_and_make_everything_once(node: Running) -> None:
    answers = await asyncio.gather(*(data(node, "{ _models }") for _ in range(20)))
    assert all(answer == answers[0] for answer in answers)
