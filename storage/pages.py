"""Reading a record's file without the engine: what stands on each page, whatever leads to it.

Room: the layout of LMDB 0.9 data files (`mdb.c`, "Page" and "Node"), as far as
finding records takes. A file that is truncated, zeroed in places or linked
wrongly would kill the process if the engine mapped it; here it is read like any
other file, and each record that is found proves itself by its checksum.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from storage.kv import KEY_MAX_BYTES, Table
from storage.lmdb_kv import CHECKSUM_BYTES, checksum

_PAGE_HEADER = struct.Struct("<QHHHH")  # number, padding, flags, lower, upper
_NODE_HEADER = struct.Struct("<HHHH")  # size of the data (low, high), flags, size of the key
_PAGE_HEADER_BYTES = 16
_IS_LEAF = 0x02
_IS_ELSEWHERE = 0x01  # the data is on pages of its own; the node holds their number
_IS_TREE = 0x02 | 0x04
_MAGIC = 0xBEEFC0DE
_PAGE_SIZES = (4_096, 16_384, 65_536, 8_192, 32_768)  # of the systems there are
_FILE_SIZE_MAX_BYTES = 1 << 62  # a place beyond it is none, and no system can be asked for it
_VALUE_MAX_BYTES = 32 << 20  # twice the largest commit


def records_on_pages(path: Path, tables: frozenset[Table]) -> Iterator[tuple[Table, bytes, bytes]]:
    """Every record of these tables that stands whole on some page, in no order.

    Pages that are free now hold older records still: one that was overwritten or deleted may come too, so ask
    only for tables whose records never change. The same one may come several times. Raises OSError.
    """
    with path.open("rb") as file:
        page_bytes = _page_size(file)
        number = 0
        while True:
            file.seek(number * page_bytes)
            page = file.read(page_bytes)
            if len(page) < _PAGE_HEADER_BYTES:
                return
            for key, stored in _nodes(file, page, page_bytes):
                value = stored[CHECKSUM_BYTES:]
                for table in tables:
                    if checksum(table, key, value) == stored[:CHECKSUM_BYTES]:
                        yield table, key, value
                        break
            number += 1


def _page_size(file: IO[bytes]) -> int:
    """From one of the two meta pages; the system's usual one if neither can be read."""
    for size_bytes in _PAGE_SIZES:
        for start in (0, size_bytes):
            file.seek(start + _PAGE_HEADER_BYTES)
            meta = file.read(32)  # magic, version, address, map size, page size
            if len(meta) == 32 and struct.unpack_from("<I", meta)[0] == _MAGIC:
                found: int = struct.unpack_from("<I", meta, 24)[0]
                if found in _PAGE_SIZES:
                    return found
    return _PAGE_SIZES[0]


def _nodes(file: IO[bytes], page: bytes, page_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and stored values of a leaf page; nothing of one that is no leaf or makes no sense."""
    _, _, flags, lower, upper = _PAGE_HEADER.unpack_from(page)
    if flags & 0xFF & ~0x10 != _IS_LEAF or not _PAGE_HEADER_BYTES <= lower <= upper <= len(page):
        return
    for position in range(_PAGE_HEADER_BYTES, lower, 2):
        (offset,) = struct.unpack_from("<H", page, position)
        if offset < lower or offset + _NODE_HEADER.size > len(page):
            continue
        low, high, node_flags, key_bytes = _NODE_HEADER.unpack_from(page, offset)
        data_bytes = low | high << 16
        key_at = offset + _NODE_HEADER.size
        data_at = key_at + key_bytes
        if node_flags & _IS_TREE or not 0 < key_bytes <= KEY_MAX_BYTES or data_bytes < CHECKSUM_BYTES:
            continue
        key = page[key_at:data_at]
        if node_flags & _IS_ELSEWHERE:
            place = int.from_bytes(page[data_at : data_at + 8], "little") * page_bytes + _PAGE_HEADER_BYTES
            if data_at + 8 <= len(page) and data_bytes <= _VALUE_MAX_BYTES and place < _FILE_SIZE_MAX_BYTES:
                file.seek(place)
                yield key, file.read(data_bytes)
        elif data_at + data_bytes <= len(page):
            yield key, page[data_at : data_at + data_bytes]
