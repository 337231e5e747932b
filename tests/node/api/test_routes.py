import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.errors import ApiError
from node.api.routes import RouteTable, percent_decoded


def table() -> RouteTable[str]:
    routes: RouteTable[str] = RouteTable()
    for method, path in (
        ("GET", "/"),
        ("GET", "/v1/users"),
        ("POST", "/v1/users"),
        ("GET", "/v1/users/me"),
        ("GET", "/v1/users/{id}"),
        ("DELETE", "/v1/users/{id}"),
        ("POST", "/v1/data/{model}/aggregate"),
        ("GET", "/v1/data/{model}/{id}"),
        ("GET", "/v1/data/{name}/queries/{query}"),
        ("GET", "/files/{bucket}/{path*}"),
        ("GET", "/files/{bucket}/info"),
    ):
        routes.add(method, path, f"{method} {path}")
    return routes


@pytest.mark.parametrize(
    ("method", "path", "target", "values"),
    [
        ("GET", "/", "GET /", {}),
        ("HEAD", "/", "GET /", {}),
        ("GET", "/v1/users", "GET /v1/users", {}),
        ("GET", "/v1/users/me", "GET /v1/users/me", {}),
        ("GET", "/v1/users/7", "GET /v1/users/{id}", {"id": "7"}),
        ("POST", "/v1/data/task/aggregate", "POST /v1/data/{model}/aggregate", {"model": "task"}),
        ("GET", "/v1/data/t/queries/q", "GET /v1/data/{name}/queries/{query}", {"name": "t", "query": "q"}),
        ("GET", "/files/b/a/b/c.txt", "GET /files/{bucket}/{path*}", {"bucket": "b", "path": "a/b/c.txt"}),
        ("GET", "/files/b/info", "GET /files/{bucket}/info", {"bucket": "b"}),
        ("GET", "/v1/users/a%2Fb", "GET /v1/users/{id}", {"id": "a/b"}),
        ("GET", "/v1/users/%6De", "GET /v1/users/me", {}),
    ],
)
def test_where_a_path_leads(method: str, path: str, target: str, values: dict[str, str]) -> None:
    assert table().find(method, path) == (target, values)


@pytest.mark.parametrize(
    ("method", "path", "methods"),
    [
        ("PUT", "/v1/users", ["GET", "HEAD", "POST"]),
        ("PATCH", "/v1/users/me", ["GET", "HEAD"]),
        ("DELETE", "/v1/users/me", ["GET", "HEAD"]),
        ("GET", "/v1/data/task/aggregate", ["POST"]),
        ("PUT", "/v1/data/task/aggregate", ["POST"]),
        ("GET", "/v1/user", []),
        ("GET", "/v1/users/", []),
        ("GET", "/v1/users/7/x", []),
        ("GET", "//v1/users", []),
        ("GET", "", []),
        ("POST", "/files/b/a/b", ["GET", "HEAD"]),
    ],
)
def test_where_no_path_leads_the_methods_there_are_named(method: str, path: str, methods: list[str]) -> None:
    assert table().find(method, path) == methods


@pytest.mark.parametrize("path", ["/v1/users", "v1", "/files/{path*}/more"])
def test_a_route_that_cannot_be_reached_is_not_mounted(path: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        table().add("GET", path, "again")


@given(st.text(alphabet="/ab{}*%2Fmeusr1.", max_size=30))
def test_no_path_makes_the_search_fail(path: str) -> None:
    try:
        found = table().find("GET", "/" + path)
    except ApiError as error:
        assert error.status == 400
    else:
        assert isinstance(found, (tuple, list))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=20))
def test_what_was_encoded_is_decoded(text: str) -> None:
    from urllib.parse import quote

    assert percent_decoded(quote(text, safe="")) == text
