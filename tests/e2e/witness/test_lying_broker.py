"""A broker that shows its witnesses something else than everybody, and witnesses that are not who they should be.

The broker is real; between it and its nodes stands one that has its keys and alters what passes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from permslip import checkpoints
from permslip._pb.permslip.v1 import ledger_pb2, node_pb2
from permslip.checkpoints import Checkpoint, CosignatureSigner, cosign, open_checkpoint, sign_checkpoint
from permslip.errors import ProofError
from permslip.keys import SigningKey
from permslip.notes import Ed25519Signer, parse_note
from permslip.witnesses import witness_name
from tests.e2e.witness.three_witnesses import ThreeWitnesses
from tests.federation.lying_broker import Line, LyingBroker
from tests.federation.school_process import SchoolProcess, until

pytestmark = pytest.mark.e2e

Fault = ledger_pb2.WitnessFault
Lie = Callable[[node_pb2.CheckpointOffer, LyingBroker], None]


@pytest.fixture
async def federation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ThreeWitnesses]:
    """All three have cosigned."""
    with ThreeWitnesses(tmp_path_factory.mktemp("lied_to")) as running:
        await running.settled_in()
        await running.until_cosigned(at_least=running.grow(), by=3)
        yield running


@pytest.fixture
async def liar(federation: ThreeWitnesses) -> AsyncIterator[LyingBroker]:
    async with LyingBroker(federation.processes.address, federation.processes.broker_folder) as lying:
        yield lying


def offers(lie: Lie, liar: LyingBroker) -> Callable[[node_pb2.AttachResponse, Line], node_pb2.AttachResponse]:
    """Alter each checkpoint that goes down."""

    def alter(message: node_pb2.AttachResponse, _line: Line) -> node_pb2.AttachResponse:
        for frame in message.frames:
            if frame.HasField("checkpoint"):
                lie(frame.checkpoint, liar)
        return message

    return alter


async def lie_to(school: SchoolProcess, liar: LyingBroker) -> None:
    """Let a school's stream go through the liar from now on."""
    school.cable.target = liar.port
    school.cable.cut()
    await liar.line("Attach")


def signed(checkpoint: Checkpoint, liar: LyingBroker) -> bytes:
    return sign_checkpoint(checkpoint, [Ed25519Signer(checkpoint.origin, liar.key)])


def fork(offer: node_pb2.CheckpointOffer, liar: LyingBroker) -> None:
    """Another root, and no proof; at the size that was cosigned last once the broker was told of it."""
    true = Checkpoint.parse(parse_note(offer.checkpoint.note).untrusted_text)
    size = offer.consistency.old_size or true.size
    offer.checkpoint.note = signed(Checkpoint(true.origin, size, b"f" * 32), liar)
    offer.consistency.new_size = size
    del offer.consistency.hashes[:]


def rollback(offer: node_pb2.CheckpointOffer, liar: LyingBroker) -> None:
    """A ledger of three entries."""
    true = Checkpoint.parse(parse_note(offer.checkpoint.note).untrusted_text)
    offer.checkpoint.note = signed(Checkpoint(true.origin, 3, b"r" * 32), liar)


def unproved(offer: node_pb2.CheckpointOffer, liar: LyingBroker) -> None:
    """Another history that has grown, and a proof of the true one."""
    true = Checkpoint.parse(parse_note(offer.checkpoint.note).untrusted_text)
    offer.checkpoint.note = signed(Checkpoint(true.origin, true.size, b"u" * 32), liar)


def unsigned(offer: node_pb2.CheckpointOffer, _liar: LyingBroker) -> None:
    """Signed by somebody else under the broker's name."""
    true = Checkpoint.parse(parse_note(offer.checkpoint.note).untrusted_text)
    offer.checkpoint.note = sign_checkpoint(true, [Ed25519Signer(true.origin, SigningKey.generate())])


@pytest.mark.parametrize(
    ("lie", "faults"),
    [
        (fork, {Fault.WITNESS_FAULT_FORK}),
        (rollback, {Fault.WITNESS_FAULT_ROLLBACK}),
        (unproved, {Fault.WITNESS_FAULT_BAD_PROOF, Fault.WITNESS_FAULT_FORK}),
        (unsigned, {Fault.WITNESS_FAULT_BAD_SIGNATURE}),
    ],
    ids=["fork", "rollback", "unproved", "unsigned"],
)
async def test_one_witness_that_is_lied_to_refuses_and_raises_the_alarm(
    federation: ThreeWitnesses, liar: LyingBroker, lie: Lie, faults: set[int]
) -> None:
    school = federation.schools[0]
    liar.down["Attach"] = offers(lie, liar)
    await lie_to(school, liar)
    grown = federation.grow()

    await school.until_said("checkpoint_refused")
    alerts = await until(lambda: school.ledger.events("witness_alert"), "the alert is recorded")
    assert {each.fault for each in alerts} <= faults
    await federation.until_broker_said("checkpoint_refused_by_node")
    told = federation.processes.command("node", "report", "--config", str(school.config))
    assert told["witnessed"][0]["alerts"] >= 1

    found = await federation.until_cosigned(at_least=grown)
    name = witness_name(federation.processes.federation, school.root)
    assert name not in {each.witness.name for each in found.cosignatures}
    school.ledger.verify()


async def test_no_quorum_of_witnesses_cosigns_two_histories(federation: ThreeWitnesses, liar: LyingBroker) -> None:
    before = await federation.checkpoint()
    liar.down["Attach"] = offers(unproved, liar)
    for school in federation.schools:
        school.cable.target = liar.port
        school.cable.cut()
    await liar.line("Attach", len(federation.schools))
    federation.grow()

    for school in federation.schools:
        await school.until_said("checkpoint_refused")
    assert (await federation.checkpoint()).checkpoint == before.checkpoint


# ------------------------------------------------------------------------------------- false witnesses


def answers(
    federation: ThreeWitnesses, liar: LyingBroker, name: str, key: SigningKey
) -> Callable[[node_pb2.AttachRequest, Line], node_pb2.AttachRequest]:
    """Put this signer's cosignatures in the place of the node's."""

    def alter(message: node_pb2.AttachRequest, _line: Line) -> node_pb2.AttachRequest:
        for frame in message.frames:
            if frame.HasField("cosignature") and frame.cosignature.lines:
                note = offered[frame.cosignature.size]
                opened = open_checkpoint(note, federation.log_verifier())
                line = cosign(opened, CosignatureSigner(name, key, timestamp=1_800_000_000))
                frame.cosignature.lines = line.line().encode()
        return message

    offered: dict[int, bytes] = {}

    def remember(offer: node_pb2.CheckpointOffer, _liar: LyingBroker) -> None:
        checkpoint = Checkpoint.parse(parse_note(offer.checkpoint.note).untrusted_text)
        offered[checkpoint.size] = offer.checkpoint.note

    liar.down["Attach"] = offers(remember, liar)
    return alter


@pytest.mark.parametrize("who", ["a stranger", "a stranger under its name", "the other witness", "the broker itself"])
async def test_nobody_else_counts_as_a_witness(federation: ThreeWitnesses, liar: LyingBroker, who: str) -> None:
    """One honest witness and one that is replaced: two are needed, and the replaced one must not make up for it."""
    honest, replaced, gone = federation.schools
    fed = federation.processes.federation
    names = {each: witness_name(fed, each.root) for each in federation.schools}
    signers: dict[str, tuple[str, SigningKey]] = {
        "a stranger": ("stranger.example", SigningKey.generate()),
        "a stranger under its name": (names[replaced], SigningKey.generate()),
        "the other witness": (names[honest], honest.organization.key),
        "the broker itself": (names[replaced], liar.key),
    }
    liar.up["Attach"] = answers(federation, liar, *signers[who])
    gone.kill()
    await lie_to(replaced, liar)
    grown = federation.grow()

    await federation.until_broker_said("cosignature_refused")
    with pytest.raises(ProofError):
        _covers(await federation.checkpoint(), grown)

    replaced.cable.target = federation.port
    replaced.cable.cut()
    found = await federation.until_cosigned(at_least=grown)
    assert {each.witness.name for each in found.cosignatures} == {names[honest], names[replaced]}


def _covers(found: checkpoints.VerifiedCheckpoint, size: int) -> None:
    if found.checkpoint.size < size:
        raise ProofError("it does not cover what was recorded since")
