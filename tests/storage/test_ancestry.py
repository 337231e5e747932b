from contextlib import ExitStack

from protocol.ancestor import NOTHING, is_past
from protocol.body import Dot
from protocol.document import Document
from protocol.ids import author_of
from storage.ancestry import KnownOrigins, past_in, past_when_asked
from storage.changes import Received
from tests.storage.kit import APPLICATION, Site, one, update
from tests.storage.test_index_conflicts import Twins, record


def document(site: Site, twins: Twins, id: str) -> Document:
    with site.store.read() as snapshot:
        found = snapshot.documents.get(site.store.space(APPLICATION), twins.model.id, id)
    assert found is not None
    return found


def test_a_body_reaches_what_its_node_had_integrated() -> None:
    twins = Twins()
    twins.first.create(twins.model, "one", title="a")
    twins.meet()
    twins.apart("one", {"title": "b"}, {"title": "c"})
    for site in twins.sites:
        space, found = site.store.space(APPLICATION), document(site, twins, "one")
        with site.store.read() as snapshot:
            past = past_in(snapshot, space)(found)
            one, other = (layer.dot for layer in found.layers)
            base = Dot(one.author, one.seq - 1, 0)
            assert is_past(past, one, base) and is_past(past, other, base)
            assert not is_past(past, one, other) and not is_past(past, other, one)
            assert not is_past(past, one, one)
            assert past.reach(one, author_of(bytes(32), bytes(8))) == NOTHING
            (origin,) = past.origins_of("title", [one, other])
            assert (origin.dot, origin.value) == (base, "a")


def test_a_body_in_the_making_reaches_all_that_is_here() -> None:
    """A value that is written beside a conflict in another field is shown at once as it will be shown later."""
    twins = Twins("merge")
    twins.first.create(twins.model, "one", title="x", points=10)
    twins.meet()
    twins.apart("one", {"points": 11}, {"points": 12})
    shown = twins.first.update(twins.model, "one", title="y")
    assert shown.values["points"] == 13
    assert shown == record(twins.first, twins.model, "one")
    site = twins.second  # which has signed nothing since it heard of the other value
    found, space = document(site, twins, "one"), site.store.space(APPLICATION)
    with site.store.read() as snapshot:
        assert site.store.identity is not None
        own = site.store.identity.author
        head = snapshot.head(space, own)
        assert head is not None
        past, in_the_making = past_in(snapshot, space)(found), Dot(own, head.seq + 1, 0)
        for layer in found.layers:
            assert is_past(past, in_the_making, layer.dot)
    # Received and written on in one group: what came stands in the same transaction as what is planned on it.
    twins.second.update(twins.model, "one", points=20)
    written = twins.first.group(Received(twins.second.commits()), one(update(twins.model, "one", title="z")))
    assert written.results[1][0].values == {"title": "z", "points": 20}
    assert twins.first.index is not None
    _, rows = twins.first.index.sql("SELECT title, points FROM Task")
    assert rows == [("z", 20)]


def test_history_is_read_from_its_newest_end() -> None:
    twins = Twins()
    for title in "abc":
        twins.first.put(twins.model, "one", {"title": title})
    twins.first.put(twins.model, "other", {"title": "x"})
    with twins.first.store.read() as snapshot:
        space = twins.first.store.space(APPLICATION)
        backwards = list(snapshot.documents.history_backwards(space, twins.model.id, "one"))
        assert backwards == list(snapshot.documents.history(space, twins.model.id, "one"))[::-1]
        assert len(backwards) == 3
        assert list(snapshot.documents.history_backwards(space, "no_such_model", "one")) == []


def test_no_snapshot_is_opened_before_something_is_asked() -> None:
    twins = Twins()
    twins.first.put(twins.model, "one", {"title": "a"})
    found, space = document(twins.first, twins, "one"), twins.first.store.space(APPLICATION)
    opened: list[str] = []
    read = twins.first.store.read

    def counted() -> object:
        opened.append("read")
        return read()

    twins.first.store.read = counted  # type: ignore[method-assign,assignment]
    with ExitStack() as stack:
        past_of = past_when_asked(twins.first.store, space, stack)
        assert opened == []
        past_of(found), past_of(found)
        assert opened == ["read"]


def test_where_values_came_from_is_looked_for_once_until_something_is_judged_again() -> None:
    twins = Twins("merge")
    twins.first.create(twins.model, "one", title="x", points=10)
    twins.meet()
    twins.apart("one", {"points": 11}, {"points": 12})
    known, space = KnownOrigins(), twins.first.store.space(APPLICATION)
    reads: list[str] = []

    def origin() -> object:
        found = document(twins.first, twins, "one")
        with twins.first.store.read() as snapshot:
            backwards = snapshot.documents.history_backwards
            snapshot.documents.history_backwards = lambda *key: (reads.append("read"), backwards(*key))[1]  # type: ignore[method-assign,func-returns-value]
            dots = [layer.dot for layer in found.layers if "points" in layer.registers]
            (origin,) = past_in(snapshot, space, known)(found).origins_of("points", dots)
            return origin

    first = origin()
    twins.first.update(twins.model, "one", title="y")
    assert origin() == first and reads == ["read"]
    twins.second.now_ms += 10 * 60_000
    twins.second.put(twins.model, "other", {"title": "early"})
    twins.first.group(Received(twins.second.commits()))
    twins.first.now_ms += 10 * 60_000
    twins.first.group()  # what came early is judged again
    assert origin() == first and reads == ["read", "read"]
