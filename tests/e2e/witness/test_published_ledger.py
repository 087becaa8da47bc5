"""The ledger as others see it: checkpoint and tiles over HTTP, and as files that the commands write."""

from __future__ import annotations

import asyncio
import stat
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.error import HTTPError

import pytest

from permslip.checkpoints import VerifiedCheckpoint, open_checkpoint
from permslip.errors import ProofError
from permslip.merkle import inclusion_proof, leaf_hash, root_at, verify_inclusion
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey
from permslip.tiles import Tile, TileHashes, bundles_between, decode_bundle
from permslip.witnesses import witness_name
from tests.e2e.witness.three_witnesses import ThreeWitnesses

pytestmark = pytest.mark.e2e


def get(federation: ThreeWitnesses, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{federation.site}/{path}", timeout=20) as answer:
        content: bytes = answer.read()
    return content


async def published(federation: ThreeWitnesses, at_least: int) -> VerifiedCheckpoint:
    """The published checkpoint, once it covers so much; cosigned as the operator demands."""
    found: list[VerifiedCheckpoint] = []

    async def covers() -> bool:
        try:
            note = await asyncio.to_thread(get, federation, "checkpoint")
            found.append(federation.policy().verify(note, federation.log_verifier()))
        except (HTTPError, ProofError):
            return False
        return found[-1].checkpoint.size >= at_least

    await federation.until_true(covers, "the checkpoint is published")
    return found[-1]


async def test_ledger_is_published_and_exported(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("published")
    with ThreeWitnesses(folder) as federation:
        await federation.settled_in()
        checkpoint = (await published(federation, federation.grow())).checkpoint

        def fetch(tiles: Sequence[Tile]) -> list[bytes]:
            return [get(federation, each.path) for each in tiles]

        hashes = TileHashes(checkpoint.size, fetch)
        assert await asyncio.to_thread(root_at, hashes, checkpoint.size) == checkpoint.root
        with pytest.raises(HTTPError) as refused:
            await asyncio.to_thread(get, federation, f"tile/entries/000.p/{checkpoint.size}")
        assert refused.value.code == 403
        refused.value.close()

        config = str(federation.processes.broker_config)
        exported = folder / "broker-tiles"
        said = federation.processes.command("broker", "export-tiles", str(exported), "--config", config, "--entries")
        note = (exported / "checkpoint").read_bytes()
        cosigned = federation.policy().verify(note, federation.log_verifier())
        assert cosigned.checkpoint.size == said["size"] >= checkpoint.size
        check_files(exported, cosigned)

        school = federation.schools[0]
        config, exported = str(school.config), folder / "node-tiles"
        federation.processes.command("node", "export-tiles", str(exported), "--config", config, "--entries")
        name = witness_name(federation.processes.federation, school.root)
        key = Ed25519Verifier(VerifierKey(name, SignatureType.ED25519, school.organization.key.public))
        check_files(exported, open_checkpoint((exported / "checkpoint").read_bytes(), key))


def check_files(folder: Path, verified: VerifiedCheckpoint) -> None:
    """Every entry is proved by the files alone, and the files are their owner's."""
    checkpoint = verified.checkpoint
    hashes = TileHashes(checkpoint.size, lambda tiles: [(folder / each.path).read_bytes() for each in tiles])
    entries = [
        entry
        for bundle in bundles_between(0, checkpoint.size)
        for entry in decode_bundle((folder / bundle.path).read_bytes(), bundle.width)
    ]
    for position, entry in enumerate(entries):
        proof = inclusion_proof(hashes, position, checkpoint.size)
        verify_inclusion(leaf_hash(entry), position, checkpoint.size, proof, checkpoint.root)
    found = [each for each in folder.rglob("*") if each.is_file()]
    assert {stat.S_IMODE(each.stat().st_mode) for each in found} == {0o600}
