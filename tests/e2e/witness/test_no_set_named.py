"""A federation whose operator named no witnesses: nodes cosign all the same, and what is newest is shown."""

from __future__ import annotations

import pytest

from permslip.checkpoints import open_checkpoint
from permslip.notes import parse_note
from permslip.witnesses import witness_name
from tests.e2e.witness.three_witnesses import ThreeWitnesses
from tests.federation.school_process import until

pytestmark = pytest.mark.e2e


async def test_nodes_cosign_and_without_them_the_broker_alone_signs_the_newest(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with ThreeWitnesses(tmp_path_factory.mktemp("unnamed"), pinned=False) as federation:
        await federation.settled_in()
        await federation.until_cosigned(at_least=federation.grow(), by=3)
        config = str(federation.processes.broker_config)
        witnesses = federation.processes.command("broker", "status", "--config", config)["witnesses"]
        assert (witnesses["needed"], witnesses["of"], witnesses["pinned"]) == (2, 3, False)

        gone = len(federation.broker_said("node_detached"))
        for each in federation.schools:
            each.kill()
        await until(lambda: len(federation.broker_said("node_detached")) >= gone + 3, "the broker knows")
        grown = federation.grow()
        note = await federation.note()

        assert open_checkpoint(note, federation.log_verifier()).checkpoint.size >= grown
        signers = {line.name for line in parse_note(note).signatures}
        assert signers == {federation.log_verifier().key.name}
        assert witness_name(federation.processes.federation, federation.schools[0].root) not in signers
