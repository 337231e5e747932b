"""The figures of synchronisation: what each is called, what it is held against, and when it passes.

Room: values only, as in `figures`. `{written}`, `{changed}` and `{call}` in a title stand for sizes.
"""

from cli.bench.figures import Against, Group, Spec, Target

_TLS = "bare TLS"
_LINK = "bare TLS link"
_CBOR = "canonical CBOR"


def _most(bound: float, *, compared: bool = False) -> Target:
    return Target(bound, at_least=False, compared=compared)


def _spec(
    key: str,
    title: str,
    unit: str,
    target: Target | None = None,
    against: Against | None = None,
    other: str | None = None,
) -> Spec:
    return Spec(key, Group.SYNC, title, unit, target, against, other)


PEER_SPECS: tuple[Spec, ...] = (
    _spec("sync_import", "import, calls of {call}, one by one", "/s"),
    _spec(
        "catch_up",
        "catch-up of {written} records",
        "/s",
        Target(0.6, at_least=True, compared=True),
        Against.SHARE,
        "import",
    ),
    _spec("catch_up_bytes", "its bytes on the link", "kB", _most(1.4, compared=True), Against.TIMES, _CBOR),
    _spec("catch_up_plain", "the same before packing", "kB", None, Against.TIMES, _CBOR),
    _spec("catch_up_deflated", "the same, deflated instead", "kB", None, Against.TIMES, _CBOR),
    _spec("get_p99_catch_up", "GET p99 meanwhile", "ms", _most(10, compared=True), Against.TIMES, "its idle p99"),
    _spec("get_p99_serving", "GET p99 on the node it is from", "ms", _most(10, compared=True), Against.TIMES,
          "its idle p99"),
    _spec("live_p50", "live, p50 from the answer on", "ms", _most(1.5), Against.TIMES, _TLS),
    _spec("live_p99", "live, p99 from the answer on", "ms", _most(7), Against.TIMES, _TLS),
    _spec("live_whole", "live, p50 from the request on", "ms", None, Against.TIMES, _TLS),
    _spec("resync", "re-sync of {changed} records, link included", "ms", _most(30), Against.TIMES, _LINK),
    _spec("resync_bytes", "its bytes on the wire, TLS included", "kB", _most(10), Against.TIMES, _CBOR),
    _spec("in_sync", "in-sync check, link included", "ms", None, Against.TIMES, _LINK),
    _spec("in_sync_bytes", "its bytes after the handshake", "B", _most(100)),
    _spec("in_sync_turns", "its round trips after the handshake", "each", _most(1)),
)  # fmt: skip
