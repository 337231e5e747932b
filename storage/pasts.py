"""What commits have seen, found again when a chain turns out to fork.

Room: the tables of causal pasts, when a fork becomes known or cuts settle one. Nothing is seen through a chain that
forks beyond what stands below the fork, so the pasts of all that was built on it end there. The rule is
`protocol.integrate`'s; which chains it holds of is `judging`'s.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from protocol.ids import SpaceId
from protocol.integrate import knowledge_of, system_past_of
from storage.judging import Basis, blind_from
from storage.names import Chain

if TYPE_CHECKING:
    from storage.store import Batch


def see_again(batch: "Batch", before: Basis, after: Basis) -> dict[SpaceId, list[tuple[Chain, int]]]:
    """Bring what is stored of pasts up to `after`, which is the batch's. The commits whose pasts were found again.

    Of those that build on a chain that forks by now, as many; if a fork has ceased to matter, all of its space.
    """
    starts: dict[SpaceId, dict[Chain, int]] = {}
    for key in before.forks.keys() | after.forks.keys():
        then, now = blind_from(batch, before, key), blind_from(batch, after, key)
        if now == then:
            continue
        space, forked = key[0], batch.names.chain(*key)
        first = starts.setdefault(space, {})
        for chain, _ in batch.names.chains_of(space):
            seq: int | None = 1
            if now is not None and (then is None or now < then):
                seq = None if forked is None else batch.log.first_seeing(chain, forked, now)
            if seq is not None:
                first[chain] = min(seq, first.get(chain, seq))
    return {space: _see_again(batch, first) for space, first in starts.items()}


def _see_again(batch: "Batch", starts: Mapping[Chain, int]) -> list[tuple[Chain, int]]:
    """Find the pasts of these chains again, each from a seq on."""
    for chain, seq in starts.items():
        batch.log.forget_pasts(chain, seq)
    found: list[tuple[Chain, int]] = []
    for _, chain, seq in batch.log.grown() if starts else ():  # causes first
        if seq >= starts.get(chain, seq + 1):
            header = batch.log.header_fields(chain, seq)
            past = system_past_of(batch, header)[1] if header.space != batch.system else None
            batch.log.put_past(chain, header.space, seq, knowledge_of(batch, header), past)
            found.append((chain, seq))
    return found
