"""A broker as a process: killed and started again, told to stop, asked how it is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from permslip._pb.permslip.v1 import guardian_pb2, guardian_pb2_grpc, ledger_pb2, statement_pb2 as pb
from permslip.checkpoints import open_checkpoint
from permslip.hosting.leaves import decode_leaf
from permslip.keyfile import read_key_file
from permslip.merkle import Frontier
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.federation.consents import make_grant, make_query
from tests.federation.principals import Organization, Person
from tests.federation.processes import FederationProcesses, now
from tests.federation.requester import open_requester, query_call
from tests.federation.simulated_node import SimulatedNode

pytestmark = pytest.mark.e2e

SECTIONS = ("transcript.grades",)


class Scene:
    """A broker process, one school and one tutor."""

    def __init__(self, processes: FederationProcesses) -> None:
        self.processes = processes
        at, name = now(), processes.federation
        self.mother = Person.new()
        self.school = Organization.new("School", pb.PRINCIPAL_KIND_NODE, name, now=at)
        self.tutor = Organization.new("Tutors", pb.PRINCIPAL_KIND_PROVIDER, name, now=at)
        processes.start_broker()
        processes.admit([self.school, self.tutor])

    def node(self) -> SimulatedNode:
        """The school's node."""
        return SimulatedNode(self.school, broker=self.processes.root, now=now)

    async def endorsed_grant(self) -> Signed[pb.Grant]:
        """A grant by the mother to the tutor."""
        grant = make_grant(
            [self.mother],
            self.school.root,
            os.urandom(16),
            self.tutor.root,
            SECTIONS,
            federation=self.processes.federation,
            now=now(),
        )
        async with grpc.aio.insecure_channel(self.processes.address) as channel:
            request = guardian_pb2.DepositConsentRequest(statements=[grant.envelope], wait=20_000)
            response = await guardian_pb2_grpc.GuardianServiceStub(channel).DepositConsent(request)
        assert response.results[0].grant.HasField("endorsement")
        return grant

    def entries(self) -> list[ledger_pb2.LogEntry]:
        """The ledger, read from the database file."""
        with sqlite3.connect(self.processes.broker_folder / "broker.db") as database:
            rows = database.execute("SELECT leaf FROM leaf ORDER BY position").fetchall()
        return [decode_leaf(row[0]) for row in rows]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Started anew for each test."""
    with FederationProcesses(tmp_path) as processes:
        yield Scene(processes)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[FederationProcesses]:
    """Made, and not started."""
    with FederationProcesses(tmp_path) as processes:
        yield processes


async def test_a_broker_killed_between_decision_and_answer_knows_the_decision_after_its_restart(scene: Scene) -> None:
    processes = scene.processes
    node = scene.node()
    async with node.attached(processes.address):
        grant = await scene.endorsed_grant()
        node.answers.clear()
        asked = make_query(scene.tutor, grant, SECTIONS, federation=processes.federation, now=now())
        async with open_requester(processes.address, scene.tutor, broker=processes.root, now=now) as tutor:
            await tutor.send(query_call(asked.envelope))
            await node.until(lambda: bool(node.asked))
            processes.broker.kill()
    before = scene.entries()
    assert before[node.asked[0].position].access_decided.query_id == asked.id

    processes.start_broker()
    again = scene.node()
    again.pushes = node.pushes
    async with again.attached(processes.address):
        assert again.heard["push"] == 0, "nothing was forgotten, nothing is pushed twice"
        async with open_requester(processes.address, scene.tutor, broker=processes.root, now=now) as tutor:
            assert (await tutor.ask(asked)).reason == Reason.QUERY_REPLAYED
            fresh = make_query(scene.tutor, grant, SECTIONS, federation=processes.federation, now=now())
            assert (await tutor.ask(fresh)).reason == Reason.ALLOWED
    assert [each.SerializeToString() for each in scene.entries()[: len(before)]] == [
        each.SerializeToString() for each in before
    ]


async def test_a_broker_that_is_told_to_stop_finishes_what_is_open(scene: Scene) -> None:
    processes = scene.processes
    node = scene.node()
    async with node.attached(processes.address):
        grant = await scene.endorsed_grant()
        node.answers.clear()
        asked = make_query(scene.tutor, grant, SECTIONS, federation=processes.federation, now=now())
        late = make_query(scene.tutor, grant, SECTIONS, federation=processes.federation, now=now())
        async with open_requester(processes.address, scene.tutor, broker=processes.root, now=now) as tutor:
            tutor.read_on()
            await tutor.send(query_call(asked.envelope))
            await node.until(lambda: bool(node.asked))
            os.kill(processes.broker.pid, signal.SIGTERM)
            await tutor.draining.wait()
            refused = await tutor.ask(late)
            assert refused.reason == Reason.DRAINING
            node.answers.set()
            assert (await tutor.finished(tutor.expect(asked.id))).reason == Reason.ALLOWED
            assert await tutor.ended() == grpc.StatusCode.OK
        await node.draining.wait()
    assert await asyncio.to_thread(processes.broker._process.wait, 30) == 0
    assert [each.access_answered.reason for each in scene.entries() if each.HasField("access_answered")] == [
        Reason.ALLOWED.wire
    ]


def test_status_tells_size_nodes_and_a_checkpoint_that_anybody_can_verify(scene: Scene) -> None:
    processes = scene.processes
    said = processes.command("broker", "status", "--config", str(processes.broker_config))
    key = read_key_file(processes.broker_folder / "broker.key").signing.public
    name = f"{processes.federation}/broker"
    log = Ed25519Verifier(VerifierKey(name, SignatureType.ED25519, key))
    checkpoint = open_checkpoint(said["checkpoint"].encode(), log).checkpoint
    assert (checkpoint.size, checkpoint.root.hex()) == (said["ledger_size"], said["root_hash"])
    frontier = Frontier()
    with sqlite3.connect(processes.broker_folder / "broker.db") as database:
        frontier.extend([row[0] for row in database.execute("SELECT leaf_hash FROM leaf ORDER BY position")])
    assert (frontier.size, frontier.root()) == (checkpoint.size, checkpoint.root)
    operator_key = processes.broker_folder / "operator.key"
    asked = processes.command(
        "broker", "status", "--config", str(processes.broker_config), "--operator-key", str(operator_key)
    )
    assert [each["attached"] for each in asked["nodes"]] == [False]
    assert asked["ledger_size"] == said["ledger_size"]


def test_only_the_operator_is_told_the_status(scene: Scene) -> None:
    processes = scene.processes
    wrong = processes.broker_folder / "broker.key"
    refused = processes.run_refused(
        "broker", "status", "--config", str(processes.broker_config), "--operator-key", str(wrong), "--json"
    )
    assert refused.code == 4
    assert json.loads(refused.errors)["code"] == "NOT_ALLOWED"


def test_a_second_broker_on_the_same_port_says_what_is_wrong(scene: Scene) -> None:
    processes = scene.processes
    failed = processes.run_refused("broker", "run", "--config", str(processes.broker_config))
    assert failed.code == 1
    assert "broker.listen" in failed.errors


def test_migrating_twice_changes_nothing(made: FederationProcesses) -> None:
    config = str(made.broker_config)
    for _ in range(2):
        assert made.command("broker", "migrate", "--config", config) == {"migrated": True}


def test_a_folder_that_holds_a_broker_is_not_overwritten(made: FederationProcesses) -> None:
    failed = made.run_refused("broker", "init", str(made.broker_folder))
    assert failed.code == 1
    assert "exists" in failed.errors


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('federation = "Grand Bend"', "broker.federation"),
        ('operator = "did:key:z6MkNobody"', "broker.operator"),
        ('listen = "nowhere"', "broker.listen"),
        ('listen = "0.0.0.0:0"', "broker.listen"),
        ('database = "oracle://x"', "broker.database"),
        ("listne = 3", "broker.listne"),
    ],
)
def test_a_wrong_setting_is_named_at_start(made: FederationProcesses, line: str, key: str) -> None:
    config = made.broker_config
    name = line.split(" = ", maxsplit=1)[0]
    kept = [each for each in config.read_text().splitlines() if not each.startswith(f"{name} =")]
    config.write_text("\n".join([kept[0], line, *kept[1:]]) + "\n")
    failed = made.run_refused("broker", "run", "--config", str(config))
    assert failed.code == 1
    assert key in failed.errors
