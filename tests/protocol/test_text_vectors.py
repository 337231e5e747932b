import json
from typing import Any

import pytest

from protocol.body import Dot
from protocol.document import Document
from protocol.yjs_update import client_id, decode_update, encode_update
from tests.protocol.editors import Said
from tests.protocol.make_text_vectors import PATH, apply, as_text, is_malformed, outcome, said_by
from tests.protocol.test_vectors import SPEC

VECTORS: dict[str, list[Any]] = json.loads(PATH.read_text(encoding="ascii"))


def test_the_vectors_are_what_the_code_makes() -> None:
    assert PATH.read_text(encoding="ascii") == as_text()


def test_client_ids_follow_from_what_they_belong_to() -> None:
    for case in VECTORS["clients"]:
        given = case["model"], case["id"], case["field"], case["n"]
        assert client_id(bytes.fromhex(case["author"]), *given) == case["client"] < 2**53


@pytest.mark.parametrize("number", range(len(VECTORS["updates"])))
def test_an_update_says_what_the_file_says(number: int) -> None:
    case = VECTORS["updates"][number]
    data = bytes.fromhex(case["bytes"])
    if "malformed" in case:
        assert is_malformed(data, case["text"])
        return
    update = decode_update(data, "f", is_text=case["text"])
    told = json.loads(json.dumps(said_by(update)))
    assert told == {name: case[name] for name in ("client", "structs", "deletes")}
    assert encode_update(update, "f") == data


@pytest.mark.parametrize("number", range(len(VECTORS["histories"])))
def test_a_history_can_be_judged_from_what_the_file_says(number: int) -> None:
    case = VECTORS["histories"][number]
    document = Document(case["model"], case["id"])
    for body in case["bodies"]:
        operations = [
            [bytes.fromhex(part) if at == 3 else part for at, part in enumerate(operation)]
            for operation in body["operations"]
        ]
        known = {bytes.fromhex(author): seq for author, seq in body["known"].items()}
        dot = Dot(bytes.fromhex(body["author"]), body["seq"], 0)
        said = Said(dot, body["hlc"], (), operations, frozenset(), known)
        assert apply(document, said, is_ballast=body["ballast"]) == body["verdict"]
    told = json.loads(json.dumps(outcome(document)))
    assert told == {name: case[name] for name in ("shown", "fields")}
    assert not document.is_broken


def test_the_histories_hold_every_verdict_and_ballast() -> None:
    bodies = [body for case in VECTORS["histories"] for body in case["bodies"]]
    assert {body["verdict"] for body in bodies} == {"applied", "void"}
    assert any(body["ballast"] for body in bodies)
    assert all(f"`{name}`" in SPEC for name in VECTORS)
