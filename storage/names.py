"""Short local numbers for long names: chains (space and author) and collections (space and model).

Room: the `chains` and `collections` tables, held in memory whole. Numbers are
local to one store and never leave it. Long random keys would make every tree
slow once it outgrows memory; a number keeps keys short and append-mostly.
"""

from collections.abc import Iterator

from protocol.ids import AUTHOR_BYTES, SPACE_ID_BYTES, Author, SpaceId
from storage.errors import StoreDamaged
from storage.kv import ReadTransaction, Table, WriteTransaction

Chain = int
Collection = int


class Names:
    """Both directories, in both directions. New numbers are given on the writer thread only."""

    def __init__(self, transaction: ReadTransaction) -> None:
        """Raises `StoreDamaged` if numbers are missing or a name is not of its form."""
        self._chains: dict[tuple[bytes, bytes], Chain] = {}
        self._authors: list[tuple[SpaceId, Author]] = []
        self._collections: dict[tuple[bytes, str], Collection] = {}
        self._models: list[tuple[SpaceId, str]] = []
        self.sizes: dict[Chain, dict[int, int]] = {}  # of the last commits of a chain, for the log; see there
        self._new: list[tuple[Table, tuple[bytes, bytes] | tuple[bytes, str]]] = []
        for key in _in_order(transaction, Table.CHAINS):
            if len(key) != SPACE_ID_BYTES + AUTHOR_BYTES:
                raise StoreDamaged(f"the name of a chain has {len(key)} bytes: run `civicnode doctor`")
            self._add_chain(SpaceId(key[:SPACE_ID_BYTES]), Author(key[SPACE_ID_BYTES:]))
        for key in _in_order(transaction, Table.COLLECTIONS):
            try:
                self._add_collection(SpaceId(key[:SPACE_ID_BYTES]), key[SPACE_ID_BYTES:].decode())
            except UnicodeDecodeError as error:
                raise StoreDamaged("the name of a collection is not text: run `civicnode doctor`") from error

    def _add_chain(self, space: SpaceId, author: Author) -> Chain:
        self._chains[space, author] = len(self._authors)
        self._authors.append((space, author))
        return len(self._authors) - 1

    def _add_collection(self, space: SpaceId, model: str) -> Collection:
        self._collections[space, model] = len(self._models)
        self._models.append((space, model))
        return len(self._models) - 1

    def chain(self, space: bytes, author: bytes) -> Chain | None:
        return self._chains.get((space, author))

    def author(self, chain: Chain) -> Author:
        """The author of a chain. Raises IndexError for a number that was never given."""
        return self._authors[chain][1]

    def space_of_chain(self, chain: Chain) -> SpaceId:
        return self._authors[chain][0]

    def chains_of(self, space: bytes) -> list[tuple[Chain, Author]]:
        return [(number, author) for number, (held, author) in enumerate(self._authors) if held == space]

    def authors(self) -> list[tuple[Chain, Author]]:
        """Every chain with its author, whatever the space."""
        return [(number, author) for number, (_, author) in enumerate(self._authors)]

    def spaces_of(self, author: bytes) -> list[SpaceId]:
        """The spaces in which an author has a chain here."""
        return [space for space, held in self._authors if held == author]

    def collection(self, space: bytes, model: str) -> Collection | None:
        return self._collections.get((space, model))

    def model(self, collection: Collection) -> tuple[SpaceId, str]:
        return self._models[collection]

    def collections_of(self, space: bytes) -> list[tuple[Collection, str]]:
        return [(number, model) for number, (held, model) in enumerate(self._models) if held == space]

    def give_chain(self, transaction: WriteTransaction, space: SpaceId, author: Author) -> Chain:
        """The number of a chain, a new one if it has none."""
        number = self._chains.get((space, author))
        if number is None:
            number = self._add_chain(space, author)
            self._new.append((Table.CHAINS, (space, author)))
            transaction.put(Table.CHAINS, space + author, number.to_bytes(4, "big"))
        return number

    def give_collection(self, transaction: WriteTransaction, space: SpaceId, model: str) -> Collection:
        """The number of a collection, a new one if it has none."""
        number = self._collections.get((space, model))
        if number is None:
            number = self._add_collection(space, model)
            self._new.append((Table.COLLECTIONS, (space, model)))
            transaction.put(Table.COLLECTIONS, space + model.encode(), number.to_bytes(4, "big"))
        return number

    def settle(self, *, kept: bool) -> None:
        """The transaction that gave new numbers ended: keep them, or take them back."""
        if not kept:
            for table, name in reversed(self._new):
                if table is Table.CHAINS:
                    del self._chains[name]  # type: ignore[arg-type]
                    self._authors.pop()
                else:
                    del self._collections[name]  # type: ignore[arg-type]
                    self._models.pop()
            self.sizes.clear()
        self._new.clear()


def _in_order(transaction: ReadTransaction, table: Table) -> Iterator[bytes]:
    """The names in a directory in the order of their numbers, which have no holes."""
    names = {int.from_bytes(value, "big"): key for key, value in transaction.scan(table, b"", None)}
    for number in range(transaction.count(table)):
        if number not in names:
            raise StoreDamaged(f"number {number} of {table} is missing: run `civicnode doctor`")
        yield names[number]
