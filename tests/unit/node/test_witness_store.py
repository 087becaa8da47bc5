"""What a witness remembers: each checkpoint is checked against the last, in the transaction that takes its place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine

from permslip._pb.permslip.v1 import ledger_pb2
from permslip.checkpoints import (
    Checkpoint,
    UpdateOutcome,
    UpdateRefusedError,
    VerifiedCheckpoint,
    open_checkpoint,
    sign_checkpoint,
)
from permslip.errors import UnavailableError
from permslip.hosting.database import open_engine, writing
from permslip.hosting.last_cosigned import OtherSizeError
from permslip.keys import SigningKey
from permslip.merkle import MemoryHashes, consistency_proof, leaf_hash, root_at
from permslip.notes import Ed25519Signer
from permslip.quantities import Millis
from permslip_node.witness_store import Alert, WitnessStore

ORIGIN = "fed.example/broker"
BROKER, OTHER_BROKER = b"b" * 32, b"c" * 32
KEY = SigningKey.from_seed(bytes([9] * 32))
HASHES = MemoryHashes.of_leaves([leaf_hash(bytes([number])) for number in range(60)])
FORKED = MemoryHashes.of_leaves([leaf_hash(bytes([number, number > 4])) for number in range(60)])
NOW = Millis(1_790_000_000_000)


def opened(size: int, hashes: MemoryHashes = HASHES, origin: str = ORIGIN) -> VerifiedCheckpoint:
    signer = Ed25519Signer(origin, KEY)
    return open_checkpoint(sign_checkpoint(Checkpoint(origin, size, root_at(hashes, size)), [signer]), signer.verifier)


def take(store: WitnessStore, size: int, old: int, hashes: MemoryHashes = HASHES, **changes: str) -> UpdateOutcome:
    proof = consistency_proof(hashes, old, size) if old <= size else []
    return store.take(BROKER, opened(size, hashes, **changes), old_size=old, proof=proof, now=NOW)


@pytest.fixture
def store(engine: Engine) -> WitnessStore:
    return WitnessStore(engine)


def size_of(store: WitnessStore, broker: bytes = BROKER) -> int:
    last = store.last(broker)
    return last.checkpoint.size if last is not None else 0


def test_the_first_checkpoint_is_taken_as_it_comes(store: WitnessStore) -> None:
    assert take(store, 21, 0) is UpdateOutcome.FIRST

    last = store.last(BROKER)
    assert last is not None
    assert (last.checkpoint, last.note, last.cosigned_at) == (opened(21).checkpoint, opened(21).note.raw, NOW)


def test_a_proved_extension_takes_the_place_of_the_last(store: WitnessStore) -> None:
    take(store, 21, 0)

    assert take(store, 34, 21) is UpdateOutcome.GROWN
    assert take(store, 34, 34) is UpdateOutcome.SAME
    assert size_of(store) == 34


@pytest.mark.parametrize("old", [0, 20, 22, 33])
def test_a_proof_from_elsewhere_is_told_where_this_witness_stands(store: WitnessStore, old: int) -> None:
    take(store, 21, 0)

    with pytest.raises(OtherSizeError, match="expected a consistency proof from size 21") as told:
        take(store, 34, old)

    assert (told.value.known, size_of(store)) == (21, 21)


def test_who_was_never_asked_wants_the_proof_from_nothing(store: WitnessStore) -> None:
    with pytest.raises(OtherSizeError) as told:
        take(store, 34, 21)

    assert (told.value.known, store.last(BROKER)) == (0, None)


@pytest.mark.parametrize("old", [0, 21])
@pytest.mark.parametrize(
    ("size", "hashes", "outcome"),
    [(21, FORKED, UpdateOutcome.FORK), (20, HASHES, UpdateOutcome.ROLLBACK), (20, FORKED, UpdateOutcome.ROLLBACK)],
    ids=["fork", "rollback", "both"],
)
def test_what_contradicts_the_last_is_refused_whatever_proof_comes_with_it(
    store: WitnessStore, old: int, size: int, hashes: MemoryHashes, outcome: UpdateOutcome
) -> None:
    take(store, 21, 0)

    with pytest.raises(UpdateRefusedError) as refused:
        take(store, size, old, hashes)

    assert (refused.value.outcome, size_of(store)) == (outcome, 21)


def test_another_history_is_not_proved_an_extension(store: WitnessStore) -> None:
    take(store, 21, 0)

    with pytest.raises(UpdateRefusedError) as refused:
        take(store, 34, 21, FORKED)

    assert (refused.value.outcome, size_of(store)) == (UpdateOutcome.INCONSISTENT, 21)


def test_another_log_does_not_take_the_place_of_the_one_that_is_known(store: WitnessStore) -> None:
    take(store, 21, 0)

    with pytest.raises(UpdateRefusedError) as refused:
        take(store, 34, 21, origin="fed.example/broker-2")

    assert (refused.value.outcome, size_of(store)) == (UpdateOutcome.OTHER_LOG, 21)


def test_each_broker_has_a_memory_of_its_own(store: WitnessStore) -> None:
    take(store, 21, 0)

    store.take(OTHER_BROKER, opened(5, FORKED), old_size=0, proof=[], now=NOW)

    assert (size_of(store), size_of(store, OTHER_BROKER)) == (21, 5)


def test_memory_outlives_the_process(store: WitnessStore, tmp_path: Path) -> None:
    take(store, 21, 0)
    again = open_engine(f"sqlite:///{tmp_path}/node.db")
    try:
        later = WitnessStore(again)
        assert size_of(later) == 21
        with pytest.raises(UpdateRefusedError):
            take(later, 21, 21, FORKED)
    finally:
        again.dispose()


def test_of_many_offers_at_once_the_largest_stays(store: WitnessStore) -> None:
    """Every one is checked against what the ones before it left: never is a smaller one written over a larger."""
    take(store, 1, 0)

    def offer(size: int) -> UpdateOutcome:
        while True:
            try:
                return take(store, size, size_of(store))
            except OtherSizeError:
                continue
            except UpdateRefusedError as refused:
                return refused.outcome

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(offer, range(2, 40)))

    assert set(outcomes) <= {UpdateOutcome.GROWN, UpdateOutcome.ROLLBACK}
    assert (outcomes[-1], size_of(store)) == (UpdateOutcome.GROWN, 39)


def test_alerts_are_kept_with_both_checkpoints(store: WitnessStore, engine: Engine) -> None:
    take(store, 21, 0)
    alert = Alert(
        BROKER, ledger_pb2.WITNESS_FAULT_FORK, NOW, 7, opened(21).note.raw, opened(21, FORKED).note.raw, "two roots"
    )
    with writing(engine) as connection:
        store.put_alert(connection, alert)

    [memory] = store.memories()

    assert (memory.broker, memory.alerts, memory.last_alert) == (BROKER, 1, alert)
    assert memory.last is not None
    assert memory.last.checkpoint.size == 21


def test_being_out_of_step_may_pass() -> None:
    assert issubclass(OtherSizeError, UnavailableError)
