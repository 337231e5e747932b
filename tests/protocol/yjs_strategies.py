"""Updates of collaborative fields: honest in form, made of small pieces that meet.

Room: hypothesis strategies for `yjs_update` and for forged operations in scenes.
"""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from protocol.encoding import encode
from protocol.yjs_update import Content, Id, Struct, Update, client_id, encode_update, merged_ranges, units
from tests.protocol import strategies

contents = st.text(alphabet="aZ\0é€😀", min_size=1, max_size=4)
elements = st.lists(strategies.values.map(encode), min_size=1, max_size=3)
clocks = st.integers(0, 12) | st.sampled_from([127, 128, 2**31, 2**53 - 100])


_any_client = st.integers(0, 3) | st.integers(0, 2**53 - 1)


@st.composite
def updates(
    draw: st.DrawFn,
    *,
    is_text: bool,
    own: int | None = None,
    clients: st.SearchStrategy[int] | None = None,
    clocks: st.SearchStrategy[int] = clocks,
) -> Update:
    """Any update of the right form; `own` is who writes, `clients` whom it may name."""
    named = _any_client if clients is None else clients
    ids: st.SearchStrategy[Id | None] = st.none() | st.tuples(named, clocks)
    client = draw(named) if own is None else own
    clock = draw(clocks)
    structs: list[Struct] = []
    for _ in range(draw(st.integers(0, 3))):
        content: Content = draw(st.none() | contents) if is_text else draw(st.none() | elements)
        length = draw(st.integers(1, 3)) if content is None else 0
        length = length or (units(content) if isinstance(content, str) else len(content or ()))
        structs.append(Struct(clock, length, draw(ids), draw(ids), content))
        clock += length
    ranges = st.lists(st.tuples(clocks, st.integers(1, 4)), min_size=1, max_size=3).map(merged_ranges)
    deletes = draw(st.dictionaries(named, ranges, min_size=0 if structs else 1, max_size=2))
    return Update(client if structs else -1, tuple(structs), tuple(sorted(deletes.items())))


def forged_operations(
    authors: Sequence[bytes], author: bytes, model: str, id: str
) -> st.SearchStrategy[list[Any]]:
    """Operations that an author may or may not have the place for."""

    def operation(kind: int, field: str, n: int) -> st.SearchStrategy[list[Any]]:
        known = st.sampled_from([client_id(other, model, id, field, n) for other in authors])
        own = client_id(author, model, id, field, n)
        made = updates(is_text=kind == 8, own=own, clients=known, clocks=st.integers(0, 6))
        return made.map(lambda update: [kind, field, n, encode_update(update, field)])

    return st.sampled_from([(8, "body", 0), (9, "steps", 0), (8, "body", 1)]).flatmap(
        lambda given: operation(*given)
    )
