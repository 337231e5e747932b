"""Names for nodes, chains, spaces and documents: fixed bytes inside, one text form outside.

Room: how an identifier is made and checked. Randomness and time are handed in.
"""

import hashlib
import re
from functools import lru_cache
from typing import NewType

from protocol.errors import InvalidId
from protocol.limits import APPLICATION_ID_LENGTH_MAX, INSTANCE_ID_LENGTH_MAX, NAME_LENGTH_MAX

NodeId = NewType("NodeId", bytes)  # 32 bytes: an Ed25519 public key
NetworkId = NewType("NetworkId", bytes)  # 32 bytes: hash of the genesis statement
SpaceId = NewType("SpaceId", bytes)  # 16 bytes
Author = NewType("Author", bytes)  # 40 bytes: node id, then 8 bytes of incarnation

NODE_ID_BYTES = 32
INCARNATION_BYTES = 8
AUTHOR_BYTES = NODE_ID_BYTES + INCARNATION_BYTES
SPACE_ID_BYTES = 16

SYSTEM_SPACE_NAME = "system"
SEGMENTS = frozenset({"aggregate", "queries"})  # where an id stands otherwise: /v1/data/{model}/…
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32, lower case: sorts like the number
_PAIRS = tuple(high + low for high in _CROCKFORD for low in _CROCKFORD)
_FORTY_BITS = (1 << 40) - 1
INSTANCE_ID_PATTERN = f"[A-Za-z0-9_.:~-]{{1,{INSTANCE_ID_LENGTH_MAX}}}"
_INSTANCE_ID = re.compile(rf"{INSTANCE_ID_PATTERN}\Z")
_NAME = re.compile(rf"\$?[A-Za-z0-9_.:~-]{{1,{NAME_LENGTH_MAX}}}\Z")
APPLICATION_ID_PATTERN = f"[A-Za-z0-9_.-]{{1,{APPLICATION_ID_LENGTH_MAX}}}"
_APPLICATION_ID = re.compile(rf"{APPLICATION_ID_PATTERN}\Z")


def author_of(node_id: bytes, incarnation: bytes) -> Author:
    """The author that `node_id` is in one life of its store."""
    return Author(node_id + incarnation)


def node_of(author: bytes) -> NodeId:
    """The node behind an author, whatever the incarnation."""
    return NodeId(author[:NODE_ID_BYTES])


@lru_cache(maxsize=256)  # asked for every document that is read
def space_id(network_id: bytes, space_name: str) -> SpaceId:
    """First 16 bytes of a hash over network and name, so that no commit means anything in another network."""
    digest = hashlib.sha256(b"civicnode space 1\0" + network_id + space_name.encode()).digest()
    return SpaceId(digest[:SPACE_ID_BYTES])


def application_space_name(application: str) -> str:
    """The space that holds an application's accounts, roles, models and data."""
    return "app/" + application


def sortable_id(now_ms: int, random_80_bits: int) -> str:
    """A 26-character id that sorts by time (the ULID layout: 48 bits of milliseconds, 80 random)."""
    return _base32(now_ms, 10) + _base32(random_80_bits >> 40, 8) + _base32(random_80_bits & _FORTY_BITS, 8)


def _base32(number: int, digits: int) -> str:
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(5 * digits - 10, -10, -10)])


def check_instance_id(text: object) -> str:
    """`text` if it may name a document; raises `InvalidId` otherwise."""
    if isinstance(text, str) and _INSTANCE_ID.match(text):
        return text
    raise InvalidId(f"an id is 1 to {INSTANCE_ID_LENGTH_MAX} characters of A-Z a-z 0-9 _ . : ~ -")


def check_chosen_id(text: object) -> str:
    """`text` if an app may choose it for a new document; raises `InvalidId` otherwise.

    What addresses of the API hold in the place of an id is no id: a document of that id could not be asked for.
    """
    id = check_instance_id(text)
    if id in SEGMENTS:
        raise InvalidId(f"{id} means something else in the address of a document")
    return id


def is_name(text: str) -> bool:
    """Whether `text` may name a model or a document in a body: what the API gives out, with room to spare."""
    return _NAME.match(text) is not None


def check_application_id(text: object) -> str:
    """`text` if it may name an application; raises `InvalidId` otherwise."""
    if isinstance(text, str) and _APPLICATION_ID.match(text):
        return text
    raise InvalidId(f"an application_id is 1 to {APPLICATION_ID_LENGTH_MAX} characters of A-Z a-z 0-9 _ . -")


def derived_model_id(application: str, name: str) -> str:
    """The part of a model's id that follows from (application, name), so definitions made apart are one."""
    return hashlib.sha256(application.encode() + b"\0" + name.encode()).hexdigest()[:8]


def builtin_model_id(application: str, name: str) -> str:
    """The id of a model that the program itself defines; `name` starts with `$`, which no other id does."""
    return f"{name}_{derived_model_id(application, name)}"
