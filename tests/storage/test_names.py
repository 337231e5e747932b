"""Numbers for chains and collections: given once, kept for ever, taken back with the write that gave them."""

import pytest

from protocol.ids import AUTHOR_BYTES, SPACE_ID_BYTES, Author, SpaceId
from storage.errors import StoreDamaged
from storage.kv import Table
from storage.memory_kv import MemoryKeyValueStore
from storage.names import Names


def space(number: int) -> SpaceId:
    return SpaceId(bytes([number]) * SPACE_ID_BYTES)


def author(number: int) -> Author:
    return Author(bytes([number]) * AUTHOR_BYTES)


def reopened(keys: MemoryKeyValueStore) -> Names:
    with keys.read() as transaction:
        return Names(transaction)


@pytest.fixture
def keys() -> MemoryKeyValueStore:
    return MemoryKeyValueStore()


def test_numbers_are_given_in_order_and_found_both_ways(keys: MemoryKeyValueStore) -> None:
    names = reopened(keys)
    with keys.write() as batch:
        assert names.give_chain(batch, space(1), author(1)) == 0
        assert names.give_chain(batch, space(1), author(2)) == 1
        assert names.give_chain(batch, space(2), author(1)) == 2
        assert names.give_chain(batch, space(1), author(2)) == 1
        assert names.give_collection(batch, space(1), "task_1") == 0
        assert names.give_collection(batch, space(2), "task_1") == 1
    names.settle(kept=True)
    for held in (names, reopened(keys)):
        assert held.chain(space(2), author(1)) == 2
        assert (held.author(2), held.space_of_chain(2)) == (author(1), space(2))
        assert held.chains_of(space(1)) == [(0, author(1)), (1, author(2))]
        assert held.spaces_of(author(1)) == [space(1), space(2)]
        assert held.authors() == [(0, author(1)), (1, author(2)), (2, author(1))]
        assert held.collections_of(space(2)) == [(1, "task_1")]
        assert held.model(1) == (space(2), "task_1")
        assert held.chain(space(2), author(2)) is None
        assert held.collection(space(1), "other") is None


def test_numbers_given_in_a_write_that_failed_are_given_again(keys: MemoryKeyValueStore) -> None:
    names = reopened(keys)
    with keys.write() as batch:
        names.give_chain(batch, space(1), author(1))
        names.give_collection(batch, space(1), "first")
    names.settle(kept=True)
    with pytest.raises(ZeroDivisionError), keys.write() as batch:
        names.give_chain(batch, space(1), author(1))  # is there already: not to be taken back
        names.give_chain(batch, space(1), author(2))
        names.give_collection(batch, space(1), "second")
        names.give_chain(batch, space(2), author(2))
        raise ZeroDivisionError
    names.settle(kept=False)
    assert names.chain(space(1), author(1)) == 0
    assert names.chain(space(1), author(2)) is None
    assert names.collection(space(1), "second") is None
    with keys.write() as batch:
        assert names.give_chain(batch, space(2), author(3)) == 1
        assert names.give_collection(batch, space(1), "third") == 1
    names.settle(kept=True)
    assert reopened(keys).chain(space(2), author(3)) == 1
    assert reopened(keys).model(1) == (space(1), "third")


@pytest.mark.parametrize("table", [Table.CHAINS, Table.COLLECTIONS])
def test_a_hole_in_the_numbers_is_damage(keys: MemoryKeyValueStore, table: Table) -> None:
    with keys.write() as batch:
        for number in (0, 2):
            batch.put(table, bytes([number]) * (SPACE_ID_BYTES + AUTHOR_BYTES), number.to_bytes(4, "big"))
    with pytest.raises(StoreDamaged, match=r"number 1 .*civicnode doctor"):
        reopened(keys)


def test_a_name_of_a_wrong_length_is_damage(keys: MemoryKeyValueStore) -> None:
    with keys.write() as batch:
        batch.put(Table.CHAINS, b"short", bytes(4))
    with pytest.raises(StoreDamaged):
        reopened(keys)


def test_a_name_that_is_not_text_is_damage(keys: MemoryKeyValueStore) -> None:
    with keys.write() as batch:
        batch.put(Table.COLLECTIONS, space(1) + b"\xff", bytes(4))
    with pytest.raises(StoreDamaged):
        reopened(keys)
