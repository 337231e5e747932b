import re
from dataclasses import replace
from typing import Any

import msgspec
from openapi_spec_validator import OpenAPIV31SpecValidator

from node.api.civicbase.data import AGGREGATION
from node.api.openapi import describe
from node.api.replies import no_content
from node.api.routes import Auth, Route
from node.api.system import System
from protocol.schema import Field, FieldType, Model
from protocol.schema_field import RESERVED_TYPES
from tests.node.api.harness import NOW_MS, USER_TOKEN, api_with


class Login(msgspec.Struct):
    """What signing in takes."""

    email: str
    password: str
    application_id: str = "default"


class Token(msgspec.Struct):
    token: str
    expires_in: int


class Page(msgspec.Struct):
    items: list[Token]
    total: int


def made(id: str, name: str, *fields: Field) -> Model:
    return Model(id, "default", name, {one.name: one for one in fields}, version="1")


TASK = made(
    "task_1",
    "Task",
    Field("title", FieldType.STRING, required=True, pattern="^[A-Z]", maximum=40),
    Field("status", FieldType.ENUM, options=("TODO", "DONE"), default="TODO", required=True),
    Field("stars", FieldType.INTEGER, minimum=0, maximum=5),
    Field("due", FieldType.DATE),
    Field("tags", FieldType.SET),
    Field("extra", FieldType.JSON),
    Field("body", FieldType.TEXT),
    Field("parent", FieldType.REFERENCE, model="Task"),
    Field("secret", FieldType.STRING, encrypted=True),
)
KINDS = [kind for kind in FieldType if kind not in RESERVED_TYPES]
ODD = made("odd_1", "e-mail / thread ü", *(Field(kind.value, kind) for kind in KINDS))


async def nothing(request: object) -> Any:
    return no_content()


ROUTES = [
    Route(
        "POST", "/v1/auth/login", nothing, "Sign in", auth=Auth.NONE, request=Login, responses={200: Token}
    ),
    Route(
        "POST",
        "/v1/auth/refresh",
        nothing,
        "Refresh",
        auth=Auth.NONE,
        request=Login,
        body_optional=True,
        responses={200: Token},
    ),
    Route(
        "GET",
        "/v1/data/{model}",
        nothing,
        "List",
        query={"page": {"type": "integer", "minimum": 1, "description": "Which"}, "q": {"required": True}},
        responses={200: Page},
    ),
    Route("POST", "/v1/data/{model}", nothing, "Create", request={"type": "object"}, responses={201: None}),
    Route("GET", "/v1/data/{model}/{id}", nothing, "Read", responses={200: {"type": "object"}}),
    Route(
        "PUT", "/v1/data/{model}/{id}", nothing, "Change", request={"type": "object"}, responses={200: None}
    ),
    Route("DELETE", "/v1/data/{model}/{id}", nothing, "Delete", responses={204: None}),
    Route(
        "POST", "/v1/data/{model}/aggregate", nothing, "Aggregate", request=AGGREGATION, responses={200: {}}
    ),
    Route("GET", "/files/{bucket}/{path*}", nothing, "File", surface="S5", responses={200: None}, rate=""),
    Route("GET", "/v1/live", nothing, "Live", auth=Auth.OPTIONAL, responses={101: None}, token_in_query=True),
    Route("GET", "/hidden", nothing, ""),
]


def test_the_description_is_valid_and_has_every_route_with_a_summary() -> None:
    document = describe(ROUTES, version="1.2.3", models=[TASK, ODD])
    OpenAPIV31SpecValidator(document).validate()
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    for route in ROUTES:
        there = (route.path.replace("*}", "}"), route.method.lower()) in described
        assert there == bool(route.summary)
    assert document["info"]["version"] == "1.2.3"


def test_operation_ids_are_unique_and_every_reference_leads_somewhere() -> None:
    document = describe(ROUTES, version="1", models=[TASK, ODD])
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    for reference in references(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def test_bodies_come_from_the_structs_that_handlers_read() -> None:
    document = describe(ROUTES, version="1")
    login = document["paths"]["/v1/auth/login"]["post"]
    assert login["requestBody"]["required"] is True
    content = login["requestBody"]["content"]["application/json"]
    assert content == {"schema": {"$ref": "#/components/schemas/Login"}}
    assert document["components"]["schemas"]["Login"]["required"] == ["email", "password"]
    assert document["components"]["schemas"]["Page"]["properties"]["items"]["items"]["$ref"].endswith(
        "/Token"
    )
    assert document["paths"]["/v1/auth/refresh"]["post"]["requestBody"]["required"] is False


def test_parameters_security_and_tags() -> None:
    paths = describe(ROUTES, version="1")["paths"]
    listing = paths["/v1/data/{model}"]["get"]
    assert {(one["name"], one["in"], one.get("required", False)) for one in listing["parameters"]} == {
        ("model", "path", True),
        ("page", "query", False),
        ("q", "query", True),
    }
    assert listing["security"] == [{"bearer": []}, {"api_key": []}]
    assert paths["/v1/auth/login"]["post"]["security"] == []
    assert paths["/v1/live"]["get"]["security"] == [{}, {"bearer": []}, {"api_key": []}]
    assert [one["name"] for one in paths["/v1/live"]["get"]["parameters"]] == ["token"]
    assert listing["tags"] == ["CivicBase"]
    assert paths["/files/{bucket}/{path}"]["get"]["tags"] == ["Auth & files"]
    assert "401" not in paths["/v1/auth/login"]["post"]["responses"]
    assert {"400", "401", "403", "404", "429", "default"} <= set(listing["responses"])


def test_a_users_model_has_paths_and_schemas_of_its_own() -> None:
    document = describe(ROUTES, version="1", models=[TASK, ODD])
    schemas = document["components"]["schemas"]
    create = document["paths"]["/v1/data/Task"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    assert create == {"$ref": "#/components/schemas/Task.Create"}
    assert schemas["Task.Create"]["required"] == ["title"]  # a default makes up for `status`
    assert schemas["Task.Create"]["additionalProperties"] is False
    assert schemas["Task.Create"]["properties"]["status"]["enum"] == ["TODO", "DONE"]
    assert schemas["Task.Create"]["properties"]["stars"]["anyOf"][0]["maximum"] == 5
    assert "required" not in schemas["Task.Update"]
    assert {"id", "created_at", "version", "title"} <= set(schemas["Task.Record"]["properties"])
    read = document["paths"]["/v1/data/Task/{id}"]["get"]
    assert [one["name"] for one in read["parameters"]] == ["id"]
    assert read["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("Task.Record")
    assert "/v1/data/e-mail%20%2F%20thread%20%C3%BC" in document["paths"]
    assert {tag["name"] for tag in document["tags"]} >= {"CivicBase", "Task", ODD.name}


def test_models_whose_names_differ_in_odd_characters_only_stay_apart() -> None:
    document = describe(ROUTES, version="1", models=[made("a", "a b"), made("b", "a?b")])
    assert {"a_b.Record", "a_b_.Record"} <= set(document["components"]["schemas"])
    OpenAPIV31SpecValidator(document).validate()


def test_printable_texts_are_those_that_python_prints() -> None:
    document = describe(ROUTES, version="1")
    pattern = re.compile(document["components"]["schemas"]["Printable"]["pattern"])
    for code in range(0, 0x110000, 7):
        assert (pattern.search(chr(code)) is not None) == chr(code).isprintable(), hex(code)


async def test_the_node_serves_a_valid_description_with_the_callers_models_only() -> None:
    asked: list[str] = []

    models = [TASK]

    def models_of(application: str) -> list[Model]:
        asked.append(application)
        return models

    system = System(version="1.0", started_ms=NOW_MS, models_of=models_of)
    async with api_with(*ROUTES[2:5], system=system) as api:
        public = (await api.ask("GET", "/openapi.json")).json
        OpenAPIV31SpecValidator(public).validate()
        assert "Task.Record" not in public["components"]["schemas"]
        assert asked == []
        own = (await api.ask("GET", "/openapi.json", token=USER_TOKEN)).json
        assert "Task.Record" in own["components"]["schemas"]
        assert asked == ["default"]
        note = Field("note", FieldType.STRING)
        models[:] = [replace(TASK, fields={**TASK.fields, "note": note}, version="2")]
        changed = (await api.ask("GET", "/openapi.json", token=USER_TOKEN)).json
        assert "note" in changed["components"]["schemas"]["Task.Record"]["properties"]


async def test_every_described_operation_is_there() -> None:
    """No described path answers 404 or 405 for itself: the description and the routes are one thing."""
    async with api_with(system=System(version="1.0", started_ms=NOW_MS)) as api:
        document = (await api.ask("GET", "/openapi.json")).json
        for path, item in document["paths"].items():
            for method in item:
                reply = await api.ask("OPTIONS", path.replace("{id}", "1"))
                assert method.upper() in reply.headers["allow"], (method, path)
