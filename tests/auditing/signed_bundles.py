"""Bundles whose checkpoints are signed by their keepers and cosigned by witnesses, as a fetch leaves them.

Example::

    bundle = signed_bundle(scene.fed, tmp_path / "audit.db", witnesses=[scene.school, scene.other])
    resign(bundle, scene.fed, scene.fed.broker, size=7, root=bytes(32), visit=2)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.auditing.bundle import Bundle
from permslip.auditing.cosigners import cosigners
from permslip.checkpoints import Checkpoint, CosignatureSigner, cosign, open_checkpoint, sign_checkpoint
from permslip.merkle import MemoryHashes, leaf_hash, root_at
from permslip.notes import Ed25519Signer, append_signatures
from permslip.statements import Signed
from permslip.witnesses import witness_name
from tests.auditing.ledgers import Audited, Keeper
from tests.scenarios.world import DAY, FEDERATION, Party

__all__ = ["resign", "signed_bundle", "witness_set"]


def signed_bundle(
    fed: Audited, path: Path, *, witnesses: Sequence[Party] = (), fetched_at: int | None = None
) -> Bundle:
    """Everything, fetched in two visits; the second one's checkpoints are cosigned, the nodes' by the broker."""
    bundle = fed.bundle(path)
    seen = fetched_at if fetched_at is not None else fed.at + DAY
    cert = fed.key_cert(fed.broker.party)
    with bundle.transaction() as db:
        bundle.add_statements([cert])
        bundle.set_meta("visits", "2")
        db.execute("DELETE FROM checkpoint")
        for keeper in (fed.broker, *fed.nodes.values()):
            hashes = [leaf_hash(each) for each in keeper.leaves()]
            tree, size = MemoryHashes.of_leaves(hashes), len(hashes)
            number = db.execute("SELECT ledger FROM ledger WHERE root = ?", (keeper.party.id,)).fetchone()[0]
            by = witnesses if keeper is fed.broker else [fed.broker.party]
            resign(bundle, keeper, number, size=size // 2, root=root_at(tree, size // 2), visit=1, at=seen)
            name, root = "" if keeper is fed.broker else fed.broker.origin, root_at(tree, size)
            resign(bundle, keeper, number, size=size, root=root, visit=2, at=seen, witnesses=by, cosigned_as=name)
    return bundle


def resign(
    bundle: Bundle,
    keeper: Keeper,
    ledger: int,
    *,
    size: int,
    root: bytes,
    visit: int,
    at: int,
    signer: Party | None = None,
    witnesses: Sequence[Party] = (),
    cosigned_as: str = "",
    ages: Sequence[int] = (),
) -> None:
    """A checkpoint of a ledger, signed by its keeper (or in its name), cosigned under the witnesses' names or another,
    so many milliseconds before it was fetched; in place of that of this visit."""
    log = Ed25519Signer(keeper.origin, (signer or keeper.party).online)
    note = sign_checkpoint(Checkpoint(keeper.origin, size, root), [log])
    opened = open_checkpoint(note, log.verifier)
    signers = [
        CosignatureSigner(cosigned_as or witness_name(FEDERATION, each.id), each.online, timestamp=(at - age) // 1_000)
        for each, age in zip(witnesses, ages or [0] * len(witnesses), strict=True)
    ]
    note = append_signatures(note, [cosign(opened, each) for each in signers])
    keys = [each.key for each in signers]
    bundle.db.execute("DELETE FROM checkpoint WHERE ledger = ? AND size = ? AND visit = ?", (ledger, size, visit))
    bundle.add_checkpoint(
        ledger,
        size,
        root,
        note,
        vkey=str(log.key),
        cosigners=cosigners(note, log.verifier, keys),
        visit=visit,
        fetched_at=at,
    )


def witness_set(fed: Audited, witnesses: Sequence[Party], quorum: int) -> Signed[pb.WitnessSet]:
    """The operator's word on who the witnesses are."""
    body = pb.WitnessSet(
        **fed.common(fed.operator), seq=1, witnesses=sorted(each.id for each in witnesses), quorum=quorum
    )
    return st.sign(st.WITNESS_SET, body, [fed.operator.online])
