"""Export and import over HTTP: what goes out comes in again, and every row that fails is named."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.node.running import Running, running

TASK: dict[str, Any] = {
    "name": "Task",
    "fields": [
        {"name": "title", "type": "string", "required": True},
        {"name": "rank", "type": "integer"},
        {"name": "done", "type": "boolean", "default": False},
        {"name": "tags", "type": "set"},
        {"name": "data", "type": "json"},
    ],
    "validators": [{"expression": "rank < 1000", "message": "Too high"}],
    "permissions": {"read": "owner"},
}
NOTE: dict[str, Any] = {"name": "Note", "fields": [{"name": "text", "type": "string"}]}


async def export(node: Running, token: str | None = None, **asked: Any) -> str:
    answer = await node.ask("POST", "/v1/export", asked, token=token)
    assert answer.status == 200, answer.text
    return answer.text


async def import_(
    node: Running,
    content: str,
    name: str = "file.json",
    accept: str = "*/*",
    token: str | None = None,
    **fields: str,
) -> tuple[int, Any]:
    form = aiohttp.FormData()
    form.add_field("file", content.encode(), filename=name)
    for field, value in fields.items():
        form.add_field(field, value)
    token = token or (node.node.settings.data_dir / "owner.token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Accept": accept}
    async with node.http.post(node.node.url + "/v1/import", data=form, headers=headers) as answer:
        text = await answer.text()
        lines = [json.loads(line) for line in text.splitlines()]
        return answer.status, lines if accept != "*/*" else lines[0]


async def filled(node: Running, count: int = 300) -> None:
    await node.model(TASK)
    await node.model(NOTE)
    operations = [
        {
            "method": "POST",
            "path": "/data/Task",
            "body": {
                "id": f"t{n:03}",
                "title": f"Task, “{n}”",
                "rank": n % 900,
                "tags": ["a", n],
                "data": {"n": [n]},
            },
        }
        for n in range(count)
    ]
    operations.append({"method": "POST", "path": "/data/Note", "body": {"id": "n1", "text": "one\ntwo"}})
    assert (await node.ask("POST", "/v1/batch", {"operations": operations})).status == 200


async def test_every_format_carries_records_out_and_in_again(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await filled(node)
        files = {
            format: await export(node, models=["Task", "Note"], format=format)
            for format in ("json", "ndjson")
        }
        files["csv"] = await export(node, models=["Task"], format="csv")
        whole = json.loads(files["json"])
        assert list(whole) == ["Task", "Note"] and len(whole["Task"]) == 300
        shown = (await node.ask("GET", "/v1/data/Task/t007")).json
        assert whole["Task"][7] == shown
        lines = [json.loads(line) for line in files["ndjson"].splitlines()]
        assert lines[7] == {"model": "Task", "data": shown} and lines[300]["model"] == "Note"
        rows = list(csv.DictReader(io.StringIO(files["csv"])))
        assert rows[7]["title"] == shown["title"] and json.loads(rows[7]["tags"]) == shown["tags"]
        meta = ("created_at", "updated_at", "version")
        plain = {name: value for name, value in shown.items() if name not in meta}
        for format, text in files.items():
            for n in range(300):
                await node.ask("DELETE", f"/v1/data/Task/t{n:03}") if n in (7, 8) else None
            model = {"model": "Task"} if format == "csv" else {}
            status, said = await import_(node, text, f"x.{format}", **model)
            rows_in = 300 if format == "csv" else 301
            assert (status, said["rows"], said["created"], said["failed"]) == (200, rows_in, 2, rows_in - 2)
            again = (await node.ask("GET", "/v1/data/Task/t007")).json
            assert {name: value for name, value in again.items() if name not in meta} == plain
            status, said = await import_(node, text, f"x.{format}", mode="upsert", **model)
            assert (said["created"], said["updated"], said["failed"]) == (0, rows_in, 0)
        assert not [name for name in os.listdir(tmp_path) if name.startswith("import-")]


async def test_rows_that_fail_are_named_and_a_dry_run_says_the_same(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model(TASK)
        rows = ["a,A,1,yes,", "b,B,x,no,", "c,,3,,", "d,D,4,maybe,x", "a,again,,,", "/,E,5,,", "f,F,1000,,"]
        text = "\n".join(["id,title,rank,done,nothing", *rows])
        expected = {
            2: {"rank": "Must be an integer"},
            3: {"title": "This field is required"},
            4: {"done": "Must be true or false", "nothing": "Unknown field"},
            7: {"rank": "Too high"},
        }
        dry = await import_(node, text, "x.csv", model="Task", dry_run="true")
        assert (await node.ask("GET", "/v1/data/Task")).json["total"] == 0
        wet = await import_(node, text, "x.csv", model="Task")
        for status, said in (dry, wet):
            assert (status, said["rows"], said["created"], said["failed"]) == (200, 7, 1, 6), said
            faults = {fault["row"]: fault for fault in said["faults"]}
            assert {row: faults[row].get("details") for row in expected} == expected
            assert faults[2]["place"] == "line 3" and faults[5]["error_code"] == "CONFLICT"
            assert list(faults[6]["details"]) == ["id"]
        assert (await node.ask("GET", "/v1/data/Task/a")).json["done"] is True


async def test_a_file_that_breaks_off_says_how_far_it_came(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model(NOTE)
        text = "".join(f'{{"text": "{n}"}}\n' for n in range(200)) + '{"text": \n'
        status, said = await import_(node, text, "x.ndjson", model="Note")
        assert (status, said["created"]) == (400, 200) and "line 201" in said["details"]["file"]
        status, said = await import_(node, '{"text": "x"}\n', "x.ndjson")
        assert (status, said["failed"]) == (200, 1) and "name it as `model`" in said["faults"][0]["error"]
        for fields, fault in (
            ({"mode": "merge"}, "mode"),
            ({"format": "xml"}, "format"),
            ({"colour": "x"}, "colour"),
        ):
            status, said = await import_(node, "[]", **fields)
            assert status == 400 and list(said["details"]) == [fault]
        status, said = await import_(node, "[]", mode="merge", model="Nothing")
        assert (status, said["details"].keys()) == (400, {"mode", "model"})
        assert (await import_(node, "[]", model="Nothing"))[0] == 404
        assert (await import_(node, ""))[1]["details"] == {"file": "the file is empty"}
        refused = await node.ask("POST", "/v1/import", {})
        assert refused.status == 415
        token = (tmp_path / "owner.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "multipart/form-data; boundary=x"}
        part = b'--x\r\nContent-Disposition: form-data; name="a\x0fb"\r\n\r\n\r\n--x--\r\n'
        async with node.http.post(node.node.url + "/v1/import", data=part, headers=headers) as answer:
            assert answer.status == 400


async def test_progress_comes_in_lines(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model(NOTE)
        text = json.dumps([{"text": "x"}] * 1_000)
        status, lines = await import_(node, text, accept="application/x-ndjson", model="Note")
        assert status == 200 and lines[-1]["type"] == "result" and lines[-1]["created"] == 1_000
        assert all(line["type"] == "progress" for line in lines[:-1])
        assert (await node.ask("GET", "/v1/data/Note")).json["total"] == 1_000


async def test_everyone_exports_and_imports_with_their_own_rights(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await filled(node, 3)
        _, ann = await node.sign_up("ann")
        assert json.loads(await export(node, ann)) == {
            "Note": [(await node.ask("GET", "/v1/data/Note/n1")).json],
            "Task": [],
        }
        mine = {"Task": [{"id": "mine", "title": "x"}, {"id": "t001", "title": "stolen"}]}
        _, said = await import_(node, json.dumps(mine), token=ann, mode="upsert", format="json")
        assert (said["created"], said["updated"]) == (1, 0)
        assert [(f["row"], f["error_code"]) for f in said["faults"]] == [(2, "FORBIDDEN")]
        assert [r["id"] for r in json.loads(await export(node, ann, models=["Task"]))["Task"]] == ["mine"]


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        ({"models": ["Task", "Nothing", "None"]}, (404, ["models[1]", "models[2]"])),
        ({"models": []}, (400, ["models"])),
        ({"models": ["Task", "Note"], "format": "csv"}, (400, ["models"])),
        ({"format": "xml", "models": ["None"]}, (400, ["format", "models[0]"])),
    ],
)
async def test_what_cannot_be_exported_is_named(
    tmp_path: Path, asked: Any, refusal: tuple[int, list[str]]
) -> None:
    async with running(tmp_path) as node:
        await node.model(TASK)
        await node.model(NOTE)
        refused = await node.ask("POST", "/v1/export", asked)
        assert (refused.status, list(refused.json["details"])) == refusal


async def test_an_export_is_of_one_moment(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await filled(node, 2_000)
        token = (node.node.settings.data_dir / "owner.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with node.http.post(node.node.url + "/v1/export", json={}, headers=headers) as answer:
            first = await answer.content.read(1)
            for n in (1_998, 1_999):
                assert (await node.ask("DELETE", f"/v1/data/Task/t{n}")).status == 204
            rest = await answer.read()
        assert len(json.loads(first + rest)["Task"]) == 2_000
