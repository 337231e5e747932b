"""Makes protocol/text_vectors.json: collaborative fields, from client ids to what becomes of forged updates.

Room: the cases, and what is told of each. `python -m tests.protocol.make_text_vectors` writes the file; a test makes
it again, and others judge every case from what the file says.
"""

import json
from pathlib import Path
from typing import Any

from protocol.body import Kind
from protocol.document import Document
from protocol.encoding import encode
from protocol.errors import ProtocolError
from protocol.shared import values_of
from protocol.yjs_update import Struct, Update, client_id, decode_update, encode_update
from tests.protocol.editors import ID, MODEL, Editors, Said, author

PATH = Path(__file__).parent.parent.parent / "protocol" / "text_vectors.json"
Case = dict[str, Any]
_CLIENTS = [
    (1, MODEL, ID, "body", 0),
    (1, MODEL, ID, "body", 1),
    (2, MODEL, ID, "body", 0),
    (1, "$a_0", "a~b", "🦊", 65_535),
]


def clients() -> list[Case]:
    return [
        {"author": author(number).hex(), "model": model, "id": id, "field": field, "n": n,
         "client": client_id(author(number), model, id, field, n)}
        for number, model, id, field, n in _CLIENTS
    ]  # fmt: skip


# -- updates -------------------------------------------------------------------------------------------------


def updates() -> list[Case]:
    one = Struct(0, 2, None, None, "hi")
    good = [
        (True, Update(7, (one,), ())),
        (
            True,
            Update(
                7,
                (Struct(130, 4, (2**53 - 2, 0), (9, 300), "a🦊b"),),
                ((3, ((0, 1), (2, 200))), (7, ((131, 2),))),
            ),
        ),
        (True, Update(7, (one, Struct(2, 3, (7, 1), None, None)), ())),
        (True, Update(-1, (), ((7, ((0, 2),)),))),
        (
            False,
            Update(
                7, (Struct(0, 3, None, (8, 0), [encode(1), encode(1.0), encode({"a": [None, "é"]})]),), ()
            ),
        ),
    ]
    cases = [_read(encode_update(update, "f"), is_text) for is_text, update in good]
    text = encode_update(Update(7, (one,), ()), "f")
    for data, is_text, odd in [
        (b"", True, "nothing at all"),
        (b"\0\0", True, "neither struct nor range"),
        (text + b"\0", True, "a byte after the end"),
        (text.replace(b"\x01f", b"\x01g"), True, "another field's name"),
        (text, False, "text in a list"),
        (text.replace(b"\x01\x01\x07\0", b"\x01\x01\x87\0\0"), True, "a padded number"),
        (text.replace(b"\x02hi", b"\0"), True, "an empty struct"),
        (text.replace(b"hi", b"\xc3("), True, "text that is not UTF-8"),
        (b"\x01\x01\x07\0\x06\x01\x01f\x01b\x04true\0", True, "a format"),
        (b"\x01\x01\x07\0\x07\x01\x01f\x02\0", False, "a nested type"),
        (b"\x01\x01\x07\0\x08\x01\x01f\x01\x7d\x01\0", False, "a number of Yjs"),
        (
            b"\x01\x01\x07\0\x08\x01\x01f\x01\x74\x02\x18\x01\0",
            False,
            "an element that is not in its shortest form",
        ),
        (b"\0\x02\x08\x01\0\x01\x07\x01\0\x01", True, "clients out of order"),
        (b"\0\x01\x07\x02\0\x01\x01\x01", True, "ranges that meet"),
    ]:
        cases.append({"bytes": data.hex(), "text": is_text, "malformed": odd})
    return cases


def _read(data: bytes, is_text: bool) -> Case:
    update = decode_update(data, "f", is_text=is_text)
    return {"bytes": data.hex(), "text": is_text, **said_by(update)}


def said_by(update: Update) -> Case:
    return {
        "client": update.client if update.structs else None,
        "structs": [
            {"clock": s.clock, "length": s.length, "origin": s.origin, "right": s.right,
             "content": s.content if isinstance(s.content, str | None) else values_of(s.content)}
            for s in update.structs
        ],
        "deletes": [[client, list(ranges)] for client, ranges in update.deletes],
    }  # fmt: skip


def is_malformed(data: bytes, is_text: bool) -> bool:
    try:
        decode_update(data, "f", is_text=is_text)
    except ProtocolError:
        return True
    return False


# -- histories -----------------------------------------------------------------------------------------------


def forged(
    editors: Editors, number: int, origin: Any, right: Any, *, clock: int = 0, n: int = 0, by: int = 0
) -> Said:
    """One character, between units as told; `by` is whose client id it says, if not the author's own."""
    own = client_id(author(by or number), MODEL, ID, "body", n)
    struct = Struct(clock, 1, origin, right, "!")
    update = encode_update(Update(own, (struct,), ()), "body")
    return editors.say(number, [[Kind.TEXT.value, "body", n, update]])


def id_of(number: int, n: int = 0) -> int:
    return client_id(author(number), MODEL, ID, "body", n)


def apart() -> Editors:
    editors = Editors(1, 2, 3)
    editors.write(1, body="The end.", steps=[1, {"a": 2.0}])
    editors.meet()
    editors.write(1, body="The good end.", steps=[0, 1])
    editors.write(2, body="The 🦊 end!", steps=[1, {"a": 2.0}, None])
    editors.write(3, body="end.")
    editors.meet(1, 2)
    editors.write(2, body="The very 🦊 good end!")
    editors.meet()
    return editors


def dishonest() -> Editors:
    editors = Editors(1, 2)
    editors.write(1, body="a🦊b")
    editors.meet()
    a = id_of(1)
    forged(editors, 2, (a, 0), None)  # over units that it had seen
    forged(editors, 2, (a, 3), (a, 0))  # the wrong way round
    forged(editors, 2, (a, 1), (a, 2))  # within a code point
    forged(editors, 2, (a, 4), None)  # after a unit that is not there
    forged(editors, 2, (a, 3), None, clock=1)  # a gap
    forged(editors, 2, (a, 3), None, by=1)  # another's client id
    editors.say(2, [[Kind.TEXT.value, "body", 0, encode_update(Update(-1, (), ((a, ((2, 2),)),)), "body")]])
    forged(editors, 2, (a, 3), None, n=3)  # this one is good, with a client of its own
    editors.meet()
    return editors


def revoked() -> Editors:
    editors = Editors(1, 2, 3)
    editors.write(1, body="The end.")
    editors.meet()
    editors.write(3, body="The( bad) end.")
    editors.meet()
    editors.write(2, body="The( bad good) end.")
    editors.write(3, body="")
    editors.meet()
    return editors


def histories() -> list[Case]:
    return [
        _history("edits made apart", apart()),
        _history("updates that break a rule each, and one that does not", dishonest()),
        _history("an author whose bodies count no more", revoked(), ballast=3),
    ]


def _history(what: str, editors: Editors, *, ballast: int = 0) -> Case:
    bodies: list[Case] = []
    document = Document(MODEL, ID)
    for said in editors.said:
        is_ballast = said.dot.author == author(ballast)
        verdict = apply(document, said, is_ballast=is_ballast)
        bodies.append(
            {
                "author": said.dot.author.hex(),
                "seq": said.dot.seq,
                "hlc": said.hlc,
                "operations": [
                    [part.hex() if isinstance(part, bytes) else part for part in operation]
                    for operation in said.operations
                ],
                "known": {
                    other.hex(): seq
                    for other, seq in sorted(said.known.items())
                    if seq and other != said.dot.author
                },
                "ballast": is_ballast,
                "verdict": verdict,
            }
        )
    return {"what": what, "model": MODEL, "id": ID, "bodies": bodies, **outcome(document)}


def apply(document: Document, said: Said, *, is_ballast: bool) -> str:
    """The verdict on a body, by which it was treated."""
    if document.fault_of(said.dot.author, said.operations, said.known_of) is not None:
        return "void"
    document.apply(
        said.dot, said.hlc, "", said.seen, said.operations, is_ballast=is_ballast, known_of=said.known_of
    )
    return "void" if is_ballast else "applied"


def outcome(document: Document) -> Case:
    """What is shown, and the runs of each field: author, n, clock, length, whether they are deleted."""
    runs = {key: field.weave.runs() for key, field in sorted(document.shared.items())}
    return {
        "shown": document.values(),
        "fields": [
            {
                "kind": kind,
                "field": name,
                "runs": [[r.client.author.hex(), r.client.n, r.clock, r.length, r.is_deleted] for r in found],
            }
            for (kind, name), found in runs.items()
        ],
    }


def vectors() -> Case:
    return {"clients": clients(), "updates": updates(), "histories": histories()}


def as_text() -> str:
    return json.dumps(vectors(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(as_text(), encoding="ascii")
