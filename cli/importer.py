"""Records into a running node, in batches; or only through the model's rules, to see what a node would say.

Room: cuts a stream of records into requests the node takes, keeps one on its way while the next is prepared,
and counts what became of each record. Reading files is in `cli.reading`.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from cli.client import NodeClient, segment
from cli.errors import CliError, Interrupted
from cli.reading import Record

BATCH_MAX_RECORDS = 500  # progress is seen, and a node answers others between two batches
BATCH_MAX_BYTES = 4 << 20  # a quarter of the largest request body a node takes
FAULTS_KEPT = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """One record the node did not take."""

    place: str
    error: str
    details: dict[str, str]

    def __str__(self) -> str:
        said = "; ".join(f"{name}: {fault}" for name, fault in self.details.items()) or self.error
        return f"{self.place}: {said}"


@dataclass
class Outcome:
    """What became of the records so far; `faults` holds the first `FAULTS_KEPT`."""

    created: int = 0
    failed: int = 0
    faults: list[Fault] = field(default_factory=list)

    def refuse(self, place: str, error: str, details: dict[str, str] | None = None) -> None:
        self.failed += 1
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(Fault(place, error, details or {}))


@dataclass
class _Batch:
    places: list[str] = field(default_factory=list)
    operations: list[bytes] = field(default_factory=list)
    size_bytes: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.operations) >= BATCH_MAX_RECORDS or self.size_bytes >= BATCH_MAX_BYTES

    def encoded(self) -> bytes:
        return b'{"atomic":false,"operations":[' + b",".join(self.operations) + b"]}"


def send(
    node: NodeClient,
    model: str,
    bodies: Iterable[tuple[str, Record]],
    report: Callable[[int], None] = lambda _done: None,
) -> Outcome:
    """Create a record of `model` from each of `bodies` (place, body), one by one: some may fail, others stay.

    `report` is called with the number of records dealt with. Raises `CliError`, saying how many were created,
    if the node goes away or its disk is full, `Interrupted` on Ctrl-C.
    """
    outcome = Outcome()
    try:
        with ThreadPoolExecutor(max_workers=1) as sender:
            pending: tuple[_Batch, Future[Any]] | None = None
            for batch in _batches(model, bodies, outcome):
                _settle(pending, outcome, report)
                pending = batch, sender.submit(node.send, "POST", "/v1/batch", batch.encoded())
            _settle(pending, outcome, report)
    except KeyboardInterrupt:
        # At least: the batch under way arrives as well, and its answer is not waited for.
        raise Interrupted(
            f"interrupted: at least {outcome.created:,} of the records were created, and stay"
        ) from None
    report(outcome.created + outcome.failed)
    return outcome


def check(definition: dict[str, Any], bodies: Iterable[tuple[str, Record]]) -> Outcome:
    """What would become of `bodies`, by the model's own rules; a node is not asked.

    Whether an id or a unique value is taken already is not seen this way.
    """
    from protocol.errors import ModelFault, ProtocolError
    from protocol.ids import check_instance_id
    from protocol.schema import parse_definition

    try:
        model = parse_definition(definition, application=definition.get("application_id", "default"))
    except ModelFault as fault:
        raise CliError(f"the model cannot be made: {fault}") from None
    outcome = Outcome()
    for place, body in bodies:
        faults = {}
        if "id" in body:
            try:
                check_instance_id(body["id"])
            except ProtocolError as fault:
                faults["id"] = str(fault)
        faults |= model.check_create({name: value for name, value in body.items() if name != "id"})[1]
        if faults:
            outcome.refuse(place, "Validation failed", faults)
        else:
            outcome.created += 1
    return outcome


def _batches(model: str, bodies: Iterable[tuple[str, Record]], outcome: Outcome) -> Iterator[_Batch]:
    path = json.dumps(f"/data/{segment(model)}").encode()
    opening = b'{"method":"POST","path":' + path + b',"body":'
    batch = _Batch()
    for place, body in bodies:
        try:
            operation = opening + json.dumps(body, ensure_ascii=False).encode() + b"}"
        except UnicodeEncodeError:
            outcome.refuse(place, "its text holds half of a surrogate pair, which is not Unicode text")
            continue
        batch.places.append(place)
        batch.operations.append(operation)
        batch.size_bytes += len(operation)
        if batch.is_full:
            yield batch
            batch = _Batch()
    if batch.operations:
        yield batch


def _settle(
    pending: tuple[_Batch, Future[Any]] | None, outcome: Outcome, report: Callable[[int], None]
) -> None:
    if pending is None:
        return
    batch, answer = pending
    try:
        results = answer.result()["results"]
    except CliError as fault:
        raise CliError(f"after {outcome.created:,} records were created: {fault.message}") from None
    for place, result in zip(batch.places, results, strict=True):
        if result["status"] < 300:
            outcome.created += 1
        else:
            said = result.get("body") or {}
            outcome.refuse(place, str(said.get("error", f"status {result['status']}")), said.get("details"))
    report(outcome.created + outcome.failed)
