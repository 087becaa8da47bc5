"""What a running federation shows to strangers: a broker, three schools that witness it, and a family.

Whatever is read here is read by the text of the C2SP specifications, and by nothing of this product.

Example::

    with showing(folder) as shown:
        shown.broker.note, shown.node.exported, shown.proofs
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.client.auditing import AsyncAuditorClient
from permslip.client.guarding import AsyncGuardianClient
from permslip.client.providing import AsyncClient
from permslip.keyfile import PrincipalKind, StoredKeys
from permslip.keys import did_text
from permslip.notes import SignatureType, VerifierKey
from permslip.wallet import Wallet
from permslip.witnesses import witness_key, witness_name
from tests.e2e.witness.three_witnesses import ThreeWitnesses
from tests.federation.principals import Organization
from tests.federation.processes import now
from tests.federation.school_process import until

__all__ = ["Proof", "Shown", "ShownLog", "entries_in", "read_proof", "showing", "tree_of"]

_CHILD: Final = "604822"
_OTHERS: Final = 127  # so that there are more entries than a tile holds


@dataclass(frozen=True)
class ShownLog:
    """One keeper's ledger.

    Attributes:
        earlier, note: checkpoints, as somebody was given them.
        key: of the keeper, as vkey.
        cosigners, quorum: vkeys, and how many of them must have cosigned.
        exported: folder that ``export-tiles --entries`` wrote.
    """

    earlier: bytes
    note: bytes
    key: str
    cosigners: tuple[str, ...]
    quorum: int
    exported: Path


@dataclass(frozen=True)
class Shown:
    """Everything that is shown.

    Attributes:
        site: address of the broker's tiles.
        proofs: folder that ``permslip guardian accesses --save`` wrote.
    """

    site: str
    broker: ShownLog
    node: ShownLog
    proofs: Path


# ------------------------------------------------------------------------------------------ read by the texts


@dataclass(frozen=True)
class Proof:
    """A file by c2sp.org/tlog-proof."""

    index: int
    leaf: bytes
    hashes: tuple[bytes, ...]
    note: bytes


def read_proof(path: Path) -> Proof:
    """Read a file whose extra data is the entry."""
    head, _, note = path.read_bytes().partition(b"\n\n")
    version, extra, index, *hashes = head.decode("ascii").split("\n")
    assert version == "c2sp.org/tlog-proof@v1"
    assert (extra[:6], index[:6]) == ("extra ", "index ")
    leaf = base64.b64decode(extra[6:], validate=True)
    return Proof(int(index[6:]), leaf, tuple(base64.b64decode(each, validate=True) for each in hashes), note)


def tree_of(note: bytes) -> tuple[int, bytes]:
    """Size and root that a checkpoint states."""
    _, size, root = note.decode().split("\n")[:3]
    return int(size), base64.b64decode(root, validate=True)


def entries_in(folder: Path) -> list[bytes]:
    """The entries that an exported folder's bundles hold: each has its length before it, in two bytes."""
    size = int((folder / "checkpoint").read_text().split("\n")[1])
    names = [f"{index:03}" for index in range(size // 256)]
    names += [f"{size // 256:03}.p/{size % 256}"] if size % 256 else []
    found = []
    for name in names:
        rest = (folder / "tile" / "entries" / name).read_bytes()
        while rest:
            end = 2 + int.from_bytes(rest[:2], "big")
            found.append(rest[2:end])
            rest = rest[end:]
    return found


# ------------------------------------------------------------------------------------------ made by processes


@contextlib.contextmanager
def showing(folder: Path) -> Iterator[Shown]:
    """Let broker and schools run while the block lasts; a mother has consented, and a tutor has asked."""
    with ThreeWitnesses(folder) as federation:
        yield asyncio.run(_show(federation, folder))


async def _show(federation: ThreeWitnesses, folder: Path) -> Shown:
    processes, school = federation.processes, federation.schools[0]
    tutor = Organization.new("Tutors", pb.PRINCIPAL_KIND_PROVIDER, processes.federation, now=now())
    auditor = Organization.new("Auditor", pb.PRINCIPAL_KIND_AUDITOR, processes.federation, now=now())
    school.learner(_CHILD, grades=5, attendance=5, size=20)
    await federation.settled_in()
    processes.admit([tutor, auditor])
    size = federation.size()
    await until(lambda: len(school.ledger.entries()) >= size, "the school holds what the broker recorded")

    trust: dict[str, Any] = {
        "broker": processes.address,
        "broker_root": did_text(processes.root),
        "federation": processes.federation,
        "operator": did_text(processes.operator.public),
    }
    keys = StoredKeys(PrincipalKind.AUDITOR, auditor.key, auditor.sealing)
    async with AsyncAuditorClient(**trust, keys=keys, cert=auditor.cert.envelope) as client:
        brokers_earlier, nodes_earlier = await _published(federation, size), await _nodes_note(client, school.root)
        processes.admit(
            Organization.new(f"Club {number}", pb.PRINCIPAL_KIND_PROVIDER, processes.federation, now=now())
            for number in range(_OTHERS)
        )
        wallet = folder / "family"
        Wallet.create(wallet)
        async with AsyncGuardianClient(**trust, wallet=wallet) as mother:
            await mother.link(school.slip(_CHILD).text(), learner="Ada")
            await mother.grant(
                tutor.root,
                sections=["transcript.grades", "personal.attendance"],
                purpose="tutoring",
                purpose_text="Help with reading",
                until="2027-06-30",
                reference="learner-17",
            )
        tutors = StoredKeys(PrincipalKind.PROVIDER, tutor.key, tutor.sealing)
        async with AsyncClient(**trust, keys=tutors, cert=tutor.cert.envelope) as asking:
            for section in ("personal.attendance", "transcript.grades"):
                await asking.profile("learner-17", sections=[section])
        await until(lambda: len(school.ledger.entries()) > 256, "the school's ledger fills more than a tile")
        size = federation.size()
        brokers, nodes = await _published(federation, size), await _nodes_note(client, school.root)

    settings = folder / "permslip.toml"
    values = {**trust, "wallet": str(wallet), "witnesses": str(federation.witness_file)}
    settings.write_text("".join(f'{key} = "{value}"\n' for key, value in values.items()), encoding="utf-8")
    processes.command("guardian", "--config", str(settings), "accesses", "--save", str(folder / "proofs"))
    for kind, config in (("broker", processes.broker_config), ("node", school.config)):
        processes.command(kind, "export-tiles", str(folder / kind[0]), "--config", str(config), "--entries")

    log = federation.log_verifier().key
    witnesses = [
        witness_key(processes.federation, each.root, each.organization.key.public.raw) for each in federation.schools
    ]
    node = VerifierKey(
        witness_name(processes.federation, school.root), SignatureType.ED25519, school.organization.key.public
    )
    broker_as_witness = VerifierKey(log.name, SignatureType.COSIGNATURE_V1, log.public)
    return Shown(
        f"http://{federation.site}",
        ShownLog(brokers_earlier, brokers, str(log), tuple(map(str, witnesses)), 2, folder / "b"),
        ShownLog(nodes_earlier, nodes, str(node), (str(broker_as_witness),), 1, folder / "n"),
        folder / "proofs",
    )


async def _published(federation: ThreeWitnesses, at_least: int) -> bytes:
    """The checkpoint on the broker's site, once it covers so much."""
    found: list[bytes] = []

    async def covers() -> bool:
        try:
            with await asyncio.to_thread(urllib.request.urlopen, f"http://{federation.site}/checkpoint") as answer:
                found.append(answer.read())
        except HTTPError as error:
            error.close()
            return False
        return tree_of(found[-1])[0] >= at_least

    await federation.until_true(covers, "the checkpoint is published")
    return found[-1]


async def _nodes_note(client: AsyncAuditorClient, root: bytes) -> bytes:
    return (await client.checkpoint(root)).note
