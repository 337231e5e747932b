"""What of a record is true: every header, link, signature and body looked at, and what damage costs.

Room: reads the tables that nothing else can replace (headers, bodies, signatures,
order of arrival) and finds what follows from them for the small tables beside
them. Does not stop at damage and writes nothing; `doctor` carries out `fixes`.
Documents are `doctor_replay`'s.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from protocol.body import body_hash, decode_stub
from protocol.commit import NO_PREVIOUS, Header, decode_header, header_hash, sign_commit, verify_signature
from protocol.encoding import decode, encode
from protocol.errors import ProtocolError
from protocol.ids import Author, SpaceId, node_of
from protocol.keys import KeyPair
from protocol.limits import SIGNATURE_KEPT_EVERY
from storage.arrivals import NO_CHAIN
from storage.errors import StoreDamaged
from storage.kv import Table
from storage.lmdb_kv import LmdbTransaction
from storage.local import LocalReader
from storage.runs import proves_with_waiting

Fix = tuple[Table, bytes, bytes | None]  # what is to be put, or deleted if the value is None


@dataclass(slots=True)
class Chain:
    """What the headers of one chain say."""

    number: int
    space: SpaceId
    author: Author
    seq: int = 0  # of the newest header that is whole
    hash: bytes = NO_PREVIOUS
    hlc: int = 0
    lost: list[tuple[int, int]] = field(default_factory=list)  # seqs, from and to
    signed: set[int] = field(default_factory=set)
    unsigned: set[int] = field(default_factory=set)  # where a signature is that is none
    arrived: bytearray = field(default_factory=lambda: bytearray(1))  # by seq

    @property
    def key(self) -> bytes:
        return self.number.to_bytes(4, "big")


@dataclass(slots=True)
class LogFindings:
    """What is lost, what can be put right, and how."""

    chains: dict[int, Chain] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # that `fixes` put right
    fixes: list[Fix] = field(default_factory=list)
    lost_bodies: list[tuple[int, int, int]] = field(default_factory=list)  # chain, seq, index
    arrival_of: dict[tuple[int, int], int] = field(default_factory=dict)  # of commits with lost bodies
    is_order_new: bool = False  # cursors into the feed do not fit any more
    bodies: int = 0
    signatures: int = 0


def examine_log(transaction: LmdbTransaction, keys: KeyPair | None, step: Callable[[], None]) -> LogFindings:
    """Look at every commit. `keys` are the node's own: what they have signed they can sign again.

    `step` is called once a commit. Raises `StorageError` if the engine cannot go on.
    """
    examination = _Examination(transaction, keys, step)
    examination.read_headers()
    examination.read_heads()
    examination.read_signatures()
    examination.read_chain_names()
    examination.read_arrivals()
    examination.tell_losses()
    return examination.found


class _Examination:
    def __init__(self, transaction: LmdbTransaction, keys: KeyPair | None, step: Callable[[], None]) -> None:
        self._transaction = transaction
        self._keys = keys
        self._step = step
        self._altered = {Table.HEADERS: 0, Table.BODIES: 0}
        self._strays = 0
        self.found = LogFindings()

    def _whole(self, table: Table) -> Iterator[tuple[bytes, bytes]]:
        """Records of a small table; one that was altered is deleted, and then missed for what it was."""
        for key, value, _ in self._transaction.audit(table):
            if value is None:
                self.found.faults.append(f"a record of {table} was altered")
                self.found.fixes.append((table, key, None))
            else:
                yield key, value

    # -- headers and bodies

    def read_headers(self) -> None:
        bodies = _Bodies(self._transaction)
        for key, data, _ in self._transaction.audit(Table.HEADERS):
            self._step()
            if data is None:  # its key may be the part that was altered: the gap tells which it was
                self._altered[Table.HEADERS] += 1
                continue
            number, seq = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")
            try:
                header = decode_header(data)
            except ProtocolError:
                self._altered[Table.HEADERS] += 1
                continue
            chain = self.found.chains.setdefault(number, Chain(number, header.space, header.author))
            self._link(chain, header, seq, header_hash(data))
            self._read_bodies(chain, header, bodies.of(key))
        self._altered[Table.BODIES] = bodies.altered
        self._strays = bodies.strays + sum(1 for _ in bodies.rest())

    def _link(self, chain: Chain, header: Header, seq: int, digest: bytes) -> None:
        where = f"commit {seq} of {_name(chain)}"
        if (header.space, header.author, header.seq) != (chain.space, chain.author, seq):
            self.found.losses.append(f"{where} is another's")
        if seq > chain.seq + 1:
            chain.lost.append((chain.seq + 1, seq - 1))
        elif header.previous != chain.hash or header.hlc <= chain.hlc:
            self.found.losses.append(f"{where} does not continue its chain")
        chain.seq, chain.hash, chain.hlc = seq, digest, header.hlc

    def _read_bodies(self, chain: Chain, header: Header, bodies: Iterator[tuple[int, bytes]]) -> None:
        missing = set(range(len(header.body_hashes)))
        for index, body in bodies:
            if index < len(header.body_hashes) and body_hash(body) == header.body_hashes[index]:
                missing.discard(index)
                self.found.bodies += 1
        for index in sorted(missing):
            key = chain.key + header.seq.to_bytes(8, "big") + index.to_bytes(2, "big")
            if not self._has_stub(key, header.body_hashes[index]):
                self.found.lost_bodies.append((chain.number, header.seq, index))

    def _has_stub(self, key: bytes, expected: bytes) -> bool:
        """Whether what is left of a body that was dropped is here."""
        try:
            data = self._transaction.get(Table.STUBS, key)
            return data is not None and decode_stub(data).hash == expected
        except (StoreDamaged, ProtocolError):
            return False

    # -- what follows from headers

    def read_heads(self) -> None:
        expected = {
            chain.key: encode([chain.seq, chain.hash, chain.hlc]) for chain in self.found.chains.values()
        }
        for key, value in self._whole(Table.HEADS):
            chain = self.found.chains.get(int.from_bytes(key, "big"))
            seq = decode(value)[0]
            if chain is None:
                self.found.losses.append(f"all {seq} commits of one chain are lost")
            elif seq > chain.seq:
                chain.lost.append((chain.seq + 1, seq))
                del expected[key]
            elif value == expected[key]:
                del expected[key]
        self._put_right(Table.HEADS, expected, "head")

    def read_chain_names(self) -> None:
        expected = {chain.space + chain.author: chain.key for chain in self.found.chains.values()}
        for key, value in self._whole(Table.CHAINS):
            if expected.get(key) == value:
                del expected[key]
        self._put_right(Table.CHAINS, expected, "name of a chain")

    def _put_right(self, table: Table, expected: dict[bytes, bytes], what: str) -> None:
        for key, value in expected.items():
            self.found.faults.append(f"a {what} was wrong")
            self.found.fixes.append((table, key, value))

    def read_signatures(self) -> None:
        for key, signature, _ in self._transaction.audit(Table.SIGNATURES):
            chain = self.found.chains.get(int.from_bytes(key[:4], "big"))
            seq = int.from_bytes(key[4:], "big")
            data = self._header_bytes(key)
            if chain is None or data is None:
                if signature is None:  # else the loss of its header is told elsewhere
                    self.found.faults.append("the signature of a commit was altered")
                    self.found.fixes.append((Table.SIGNATURES, key, None))
            elif signature is not None and verify_signature(chain.author, header_hash(data), signature):
                chain.signed.add(seq)
                self.found.signatures += 1
            else:
                self.found.faults.append(f"the signature of commit {seq} of {_name(chain)} is wrong")
                self.found.fixes.append((Table.SIGNATURES, key, None))
                chain.unsigned.add(seq)
        for chain in self.found.chains.values():
            self._sign_again(chain)

    def _header_bytes(self, key: bytes) -> bytes | None:
        try:
            return self._transaction.get(Table.HEADERS, key)
        except StoreDamaged:
            return None

    def _sign_again(self, chain: Chain) -> None:
        """A signature that is missing: our own can be made again, it will be the same."""
        if chain.lost:
            return  # whatever is done now, the one above what is lost would not fit any more
        proved = max(chain.signed, default=0)
        if self._keys is None or node_of(chain.author) != self._keys.public:
            if proved < chain.seq and not self._is_proved_by_what_waits(chain):
                what = f"commits {proved + 1} to {chain.seq} of {_name(chain)}"
                self.found.losses.append(f"{what} are proved by no signature")
            return
        kept = range(SIGNATURE_KEPT_EVERY, chain.seq + 1, SIGNATURE_KEPT_EVERY)
        for seq in sorted({*kept, chain.seq, *chain.unsigned}):
            data = self._header_bytes(chain.key + seq.to_bytes(8, "big"))
            if seq not in chain.signed and data is not None:
                signature = sign_commit(self._keys, decode_header(data), ()).signature
                self.found.faults.append(f"the signature of our commit {seq} was missing")
                self.found.fixes.append((Table.SIGNATURES, chain.key + seq.to_bytes(8, "big"), signature))

    def _is_proved_by_what_waits(self, chain: Chain) -> bool:
        """A peer's commits came in one run with a signature at its end, which waits for its causes."""
        try:
            local = LocalReader(self._transaction)
            return proves_with_waiting(local, chain.space, chain.author, chain.seq, chain.hash)
        except StoreDamaged:
            return False

    # -- the order of arrival

    def read_arrivals(self) -> None:
        for each in self.found.chains.values():
            each.arrived = bytearray(each.seq + 1)
        lost_bodies = {(number, seq) for number, seq, _ in self.found.lost_bodies}
        held: set[int] = set()
        for key, value in self._whole(Table.ARRIVALS):
            number = int.from_bytes(key, "big")
            at = int.from_bytes(value[:4], "big"), int.from_bytes(value[4:12], "big")
            held.add(number)
            if at[0] == NO_CHAIN:
                continue
            chain = self.found.chains.get(at[0])
            if chain is not None and at[1] < len(chain.arrived):
                chain.arrived[at[1]] += 1
            elif chain is not None:
                chain.lost.append((chain.seq + 1, at[1]))
            if at in lost_bodies:
                self.found.arrival_of[at] = number
        self._place_missing(held)

    def _place_missing(self, held: set[int]) -> None:
        """Commits whose arrival is not on record get the free numbers, in the order of their clocks."""
        missing = []
        for chain in self.found.chains.values():
            for seq in range(1, len(chain.arrived)):
                at = chain.key + seq.to_bytes(8, "big")
                data = None if chain.arrived[seq] else self._header_bytes(at)
                if data is not None:
                    missing.append((decode_header(data).hlc, at))
        free = (number for number in range(1, len(held) + len(missing) + 2) if number not in held)
        for (_, at), number in zip(sorted(missing), free, strict=False):
            self.found.is_order_new = True
            self.found.faults.append(f"arrival {number} was not on record")
            # What each body did is found out when the log is replayed.
            self.found.fixes.append((Table.ARRIVALS, number.to_bytes(8, "big"), at))

    # -- words

    def tell_losses(self) -> None:
        losses = self.found.losses
        for chain in self.found.chains.values():
            for first, last in sorted(set(chain.lost)):
                losses.append(f"{named_range(first, last)} lost from {_name(chain)}")
        if self._altered[Table.HEADERS] and not any(chain.lost for chain in self.found.chains.values()):
            losses.append(f"{self._altered[Table.HEADERS]} headers were altered")
        stray = max(self._altered[Table.BODIES] - len(self.found.lost_bodies), 0) + self._strays
        if stray:
            losses.append(f"{stray} bodies belong to no commit that is there")


class _Bodies:
    """Bodies in the order of the log, handed out commit by commit."""

    def __init__(self, transaction: LmdbTransaction) -> None:
        self.altered = 0  # which they were is told by what is missing
        self.strays = 0
        self._source = transaction.audit(Table.BODIES)
        self._next = self._advance()

    def _advance(self) -> tuple[bytes, bytes] | None:
        for key, value, _ in self._source:
            if value is not None:
                return key, value
            self.altered += 1
        return None

    def of(self, prefix: bytes) -> Iterator[tuple[int, bytes]]:
        """Index and body of each body of one commit. Ask in the order of the log."""
        while self._next is not None and self._next[0][:12] <= prefix:
            (key, body), self._next = self._next, self._advance()
            if key[:12] == prefix:
                yield int.from_bytes(key[12:], "big"), body
            else:
                self.strays += 1

    def rest(self) -> Iterator[bytes]:
        while self._next is not None:
            key, self._next = self._next[0], self._advance()
            yield key


def named_range(first: int, last: int) -> str:
    """`commit 3 is`, or `commits 3 to 5 are`."""
    return f"commit {first} is" if first == last else f"commits {first} to {last} are"


def _name(chain: Chain) -> str:
    return f"the chain of {node_of(chain.author).hex()[:8]} in space {chain.space.hex()[:8]}"
