"""What is left of a document that was erased, here and where its bodies never came."""

from dataclasses import replace
from pathlib import Path

import pytest

from protocol.body import body_hash
from protocol.changes import DocumentChange, Edit, EditKind
from protocol.commit import Commit, sign_commit
from protocol.integrate import Verdict
from protocol.window import Run
from storage.doctor import examine
from storage.doctor_replay import replayed_differences
from storage.erasures import Due, due
from storage.errors import DocumentErased, UnknownDocument
from storage.memory_kv import MemoryKeyValueStore
from tests.protocol.dialogue import KEYS, NOW_MS, TASK, Dialogue, Record, pair
from tests.protocol.world import without_bodies
from tests.storage.kit import APPLICATION, Site, create, tables
from tests.storage.kit import TASK as TASK_DEFINITION
from tests.storage.test_exchange import commits, integrate

SECRET = "nobody-is-to-read-this-again"


def erase(record: Record, id: str) -> None:
    change = DocumentChange("default", "someone", [Edit(EditKind.ERASE, TASK, id, {})])
    (result,) = record.integrator.write([change], NOW_MS).results
    assert not isinstance(result, Exception), result


def verdicts(record: Record, author: Record) -> list[Verdict]:
    chain = record.store.names.chain(record.store.space("default"), author.author)
    assert chain is not None
    with record.store.read() as snapshot:
        return [snapshot.log.verdict(chain, commit.header.seq, 0) for commit in snapshot.log.commits(chain)]


def statements(record: Record) -> tuple[Commit, ...]:
    chain = record.store.names.chain(record.store.system, record.author)
    assert chain is not None
    with record.store.read() as snapshot:
        return tuple(snapshot.log.commits(chain))


def test_no_table_holds_what_was_written_and_nothing_can_be_written_again() -> None:
    with Site() as site:
        model = site.define(TASK_DEFINITION)
        site.create(model, "kept", title="kept")
        site.create(model, "gone", title=SECRET, extra={"a": SECRET})
        site.update(model, "gone", title=SECRET + "!")
        site.delete(model, "gone")
        site.change(Edit(EditKind.ERASE, model, "gone", {}))
        held = tables(site.store.keys)
        assert not any(SECRET.encode() in v for table in held.values() for v in table.values())
        assert site.indexed(model) == {"kept"} and site.values(model, "gone") is None
        with pytest.raises(DocumentErased):
            site.change(create(model, "gone", title="again"))
        with pytest.raises(DocumentErased):
            site.put(model, "gone", {"title": "again"})
        with pytest.raises(UnknownDocument):
            site.update(model, "gone", title="again")
        assert site.change(Edit(EditKind.ERASE, model, "gone", {})) == [None]
        with pytest.raises(UnknownDocument):
            site.change(Edit(EditKind.ERASE, model, "never", {}))
        with site.store.read() as snapshot:
            assert list(due(snapshot.local)) == [Due(site.store.space(APPLICATION), model.id, "gone")]
        assert replayed_differences(site.store, MemoryKeyValueStore()) == []


def test_the_doctor_finds_a_record_with_erased_documents_whole(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        model = site.define(TASK_DEFINITION)
        site.create(model, "gone", title=SECRET)
        site.change(create(model, "one", title="one"), create(model, "also", title=SECRET))
        site.change(*(Edit(EditKind.ERASE, model, id, {}) for id in ("gone", "also")))
    report = examine(tmp_path, repair=False)
    assert report.problems == [] and report.ok


def test_a_peer_that_comes_later_gets_stubs_and_the_same_root() -> None:
    first, second = pair(ours=3, theirs=1)
    erase(first, "a1")
    dialogue = Dialogue(first, second).run()
    assert dialogue.is_in_sync and first.exchange.root() == second.exchange.root()
    assert first.documents() == second.documents()
    assert verdicts(second, first) == [Verdict.APPLIED, Verdict.DROPPED, Verdict.APPLIED, Verdict.APPLIED]
    held = tables(second.keys)
    assert not any(b"first 1" in v for table in held.values() for v in table.values())


def test_a_write_that_did_not_know_of_the_erasure_is_dropped_on_both_sides() -> None:
    first, second = pair(ours=1, theirs=0)
    Dialogue(first, second).run()
    erase(first, "a0")
    second.put("a0", title=SECRET)
    second.put("b0", title="kept")
    Dialogue(second, first).run()
    assert first.documents() == second.documents()
    assert verdicts(first, second) == verdicts(second, second) == [Verdict.DROPPED, Verdict.APPLIED]
    for record in (first, second):
        assert not any(SECRET.encode() in v for t in tables(record.keys).values() for v in t.values())
        assert replayed_differences(record.store, MemoryKeyValueStore()) == []


def test_what_a_liar_leaves_out_is_told_by_the_root_and_filled_in_by_others() -> None:
    first, _ = pair(ours=3, theirs=0)
    third = Record("third", founder=first)
    made = commits(first, first)
    integrate(third, Run(statements(first)), Run((*made[:1], without_bodies(made[1], [0]), made[2])))
    assert verdicts(third, first) == [Verdict.APPLIED, Verdict.MISSING, Verdict.APPLIED]
    assert third.exchange.root() != first.exchange.root()
    assert Dialogue(third, first).run().is_in_sync
    assert third.documents() == first.documents() and third.exchange.root() == first.exchange.root()
    assert verdicts(third, first) == [Verdict.APPLIED] * 3
    assert replayed_differences(third.store, MemoryKeyValueStore()) == []


def test_who_lacks_the_same_is_in_sync_and_an_erasure_accounts_for_it_later() -> None:
    first, second = pair(ours=2, theirs=0)
    third = Record("third", founder=first)
    made = commits(first, first)
    for record in (second, third):
        integrate(record, Run(statements(first)), Run((without_bodies(made[0], [0]), made[1])))
    assert verdicts(second, first) == verdicts(third, first) == [Verdict.MISSING, Verdict.APPLIED]
    assert second.exchange.root() == third.exchange.root() != first.exchange.root()
    erase(first, "a0")
    Dialogue(first, second).run()
    assert verdicts(second, first) == [Verdict.DROPPED, Verdict.APPLIED, Verdict.APPLIED]
    assert second.exchange.root() == first.exchange.root()
    assert second.documents() == first.documents()


def test_a_statement_cannot_be_left_out() -> None:
    first, second = pair(ours=1, theirs=0)
    (founding,) = statements(first)
    bodies = (b"\x86\x50" + bytes(16) + b"\x60\x61a\x61b\x80\x80",)
    header = replace(founding.header, body_hashes=tuple(map(body_hash, bodies)))
    forged = without_bodies(sign_commit(KEYS, header, bodies), [0])
    assert integrate(second, Run((forged,))).fault == "a statement that was dropped"
