"""Updates of collaborative fields: honest in form, made of small pieces that meet.

Room: hypothesis strategies for `yjs_update` and for forged operations in scenes. What a strategy is made of is made
once: making it takes longer than drawing from it.
"""

from functools import cache
from typing import Any

from hypothesis import strategies as st

from protocol.encoding import encode
from protocol.yjs_update import Content, Id, Struct, Update, client_id, encode_update, merged_ranges, units
from tests.protocol import strategies

contents = st.text(alphabet="aZ\0é€😀", min_size=1, max_size=4)
elements = st.lists(strategies.values.map(encode), min_size=1, max_size=3)
clocks = st.integers(0, 12) | st.sampled_from([127, 128, 2**31, 2**53 - 100])


_up_to_three, _lengths = st.integers(0, 3), st.integers(1, 3)
_any_client = st.integers(0, 3) | st.integers(0, 2**53 - 1)


@cache
def updates(
    *,
    is_text: bool,
    own: int | None = None,
    clients: st.SearchStrategy[int] | None = None,
    clocks: st.SearchStrategy[int] = clocks,
) -> st.SearchStrategy[Update]:
    """Any update of the right form; `own` is who writes, `clients` whom it may name."""
    named = _any_client if clients is None else clients
    ids: st.SearchStrategy[Id | None] = st.none() | st.tuples(named, clocks)
    inserted: st.SearchStrategy[Content] = st.none() | contents if is_text else st.none() | elements
    ranges = st.lists(st.tuples(clocks, st.integers(1, 4)), min_size=1, max_size=3).map(merged_ranges)
    some, any_number = (st.dictionaries(named, ranges, min_size=least, max_size=2) for least in (1, 0))

    @st.composite
    def made(draw: st.DrawFn) -> Update:
        client = draw(named) if own is None else own
        clock = draw(clocks)
        structs: list[Struct] = []
        for _ in range(draw(_up_to_three)):
            content = draw(inserted)
            length = draw(_lengths) if content is None else 0
            length = length or (units(content) if isinstance(content, str) else len(content or ()))
            structs.append(Struct(clock, length, draw(ids), draw(ids), content))
            clock += length
        deletes = draw(any_number if structs else some)
        return Update(client if structs else -1, tuple(structs), tuple(sorted(deletes.items())))

    return made()


@cache
def forged_operations(
    authors: tuple[bytes, ...], author: bytes, model: str, id: str
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
