"""Last acts: what the ledgers say, and that nothing about a learner is in the centre."""

from __future__ import annotations

from typing import Final

from permslip.armor import read_statement
from permslip.checkpoints import Checkpoint, open_checkpoint
from permslip.client.accesses import Access
from permslip.demo.children import in_parallel
from permslip.demo.stage import Stage
from permslip.errors import ProofError
from permslip.grant_views import time_text
from permslip.keys import PublicKey
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey
from permslip.statements import KEY_CERT, verify

__all__ = ["check_ledgers", "search_the_centre"]

_SHOWN: Final = 10


async def check_ledgers(stage: Stage) -> None:
    """A parent reads who looked at her child's records, proved; the broker's checkpoint is verified."""
    narrator, federation = stage.narrator, stage.federation
    narrator.act("The ledgers")
    family = stage.families[0]
    guardian = family.guardians[0]
    async with federation.guardian(guardian.wallet) as client:
        told_all = await client.accesses(client.wallet.slices if client.wallet is not None else ())
    stage.expect(bool(told_all.accesses), "the parent sees every access to her child's records")
    stage.expect(told_all.is_complete, "the broker's chains and the schools' own are whole")
    stage.expect(not told_all.findings, "broker and schools say the same")
    narrator.say(
        f"{guardian.name} reads every entry about {family.name} in the broker's ledger and in each school's own. Each "
        "is proved to be in it, and the entries of a slice are numbered, so that none can be left out:"
    )
    narrator.table(
        ("when (UTC)", "who", "the broker", "the node", "released", "sections"),
        [_access_row(each) for each in told_all.accesses[-_SHOWN:]],
    )
    told = federation.broker_status()
    checkpoint = _verified(stage, told["checkpoint"].encode())
    stage.expect(
        (checkpoint.size, checkpoint.root.hex()) == (told["ledger_size"], told["root_hash"]),
        "the signed checkpoint is that of the ledger",
    )
    ledger = stage.report.ledger
    ledger.broker_entries, ledger.checkpoint_verified = checkpoint.size, True
    held = in_parallel(lambda node: federation.run("node", "report", "--config", node.config), stage.nodes)
    ledger.node_entries = {each["name"]: each["ledger_entries"] for each in held}
    narrator.table(
        ("ledger", "entries"),
        [("broker", ledger.broker_entries), *ledger.node_entries.items()],
        numbers=(1,),
    )
    narrator.done("the broker's checkpoint is signed by the key that its root certified; the parent's proofs hold")


def search_the_centre(stage: Stage) -> None:
    """Search the broker's disk, log and memory for what families, schools and providers hold."""
    narrator, search = stage.narrator, stage.search
    narrator.act("Nothing about a learner is in the centre")
    for family in stage.families:
        search.add((family.name, *(guardian.name for guardian in family.guardians)))
    hits = search.run()
    stage.report.central_leaks = len(hits)
    narrator.say(
        f"{search.count:,} texts (names, birth dates, local ids, what parents wrote, file names) were sought in the "
        f"broker's disk, log and memory: {search.looked.bytes / 1e6:.0f} MB, as plain text, UTF-16, hexadecimal, "
        f"base64 and SHA-256. {len(search.left_out)} texts were left out, because the software itself holds them."
    )
    for hit in hits[:_SHOWN]:
        narrator.failed(f"{hit.needle!r} as {hit.form} in {hit.place} at {hit.offset}")
    stage.expect(not hits, "nothing was found")
    narrator.done("nothing was found")


def _access_row(access: Access) -> tuple[str, str, str, str, str, str]:
    sections = [path for path, _ in access.sections]
    shown = ", ".join(sections[:1]) + (f" and {len(sections) - 1} more" if len(sections) > 1 else "")
    when = time_text(access.decided_at)[11:19]
    routed, served = (each.decided.name if each is not None else "" for each in (access.broker, access.school))
    released = "" if access.released is None else f"{access.released:,} bytes"
    return when, access.requester_name, routed, served, released, shown


def _verified(stage: Stage, note: bytes) -> Checkpoint:
    """The checkpoint, believed by the key that the pinned root certified."""
    federation = stage.federation
    envelope = read_statement(federation.broker_folder / "broker.cert", KEY_CERT)
    cert = verify(KEY_CERT, envelope, federation=federation.name).payload
    if cert.root != PublicKey.from_did(federation.root).raw:
        raise ProofError("the broker's certificate is by another root than the pinned one.")
    origin = note.split(b"\n", 1)[0].decode("ascii", errors="replace")
    key = VerifierKey(origin, SignatureType.ED25519, PublicKey.parse(cert.signing_key))
    return open_checkpoint(note, Ed25519Verifier(key)).checkpoint
