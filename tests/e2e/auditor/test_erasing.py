"""Erasing beside a running broker and a running node, by the command: what is over goes, and everything goes on.

The broker's and the node's clocks begin 40 days back; the commands run by the real one, in processes of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, statement_pb2 as pb
from permslip.keyfile import PrincipalKind, StoredKeys
from permslip.keys import did_text
from permslip.linking import make_link_request
from permslip.merkle import leaf_hash
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_node.app import RunningNode
from tests.e2e.broker.small_federation import FEDERATION, SmallFederation
from tests.federation.auditor import calling, entry_of
from tests.federation.principals import DAY, Organization, admit
from tests.federation.school import GRADES, School
from tests.federation.school_process import until

pytestmark = pytest.mark.e2e

LONG_AGO = -40 * DAY


class Old:
    """A federation with a school whose grants of 40 days ago are over."""

    def __init__(self, folder: Path, federation: SmallFederation) -> None:
        self.folder, self.federation = folder, federation
        self.school = School.made(
            folder / "school",
            federation.operator,
            [(federation.address, federation.root)],
            federation=FEDERATION,
            now=federation.now,
        )
        self.handle = self.school.learner("604822", grades=5)

    def at_its_new_address(self) -> School:
        """The school, told where the broker listens now."""
        brokers = (f"{self.federation.address}={did_text(self.federation.root)}",)
        return replace(self.school, settings=replace(self.school.settings, brokers=brokers))

    async def link(self) -> None:
        """The mother, at the school."""
        slip = self.school.slip("604822").slip
        mother = self.federation.mother
        keys = StoredKeys(PrincipalKind.GUARDIAN, mother.key, mother.sealing)
        cert = self.school.organization.cert.envelope
        sealed, pending = make_link_request(slip, FEDERATION, keys, cert, self.federation.now())
        response = await self.federation.guardian_calls.RelayLink(
            guardian_pb2.RelayLinkRequest(federation=FEDERATION, node=self.school.root, sealed_request=sealed)
        )
        pending.open_response(response.sealed_response)

    async def consent(self) -> Signed[pb.Grant]:
        """The mother's, to the tutor, for 30 days; endorsed."""
        return await self.federation.endorsed_grant(
            self.school.organization, handle=self.handle, sections=(GRADES,), now=self.federation.now() - 1_000
        )

    async def ask(self, grant: Signed[pb.Grant]) -> tuple[bytes, Reason]:
        """A query under it; its id, and how it ended."""
        async with self.federation.requester(self.federation.tutor) as tutor:
            asked = self.federation.query(self.federation.tutor, grant, (GRADES,))
            answer = await tutor.ask(asked)
        return asked.id, answer.reason

    async def command(self, *words: str, code: int = 0) -> Any:
        """Run ``permslip …`` in a process of its own."""
        settings = self.federation.settings
        told = {
            "KEY_FILE": settings.key_file,
            "CERT_FILE": settings.cert_file,
            "FEDERATION": FEDERATION,
            "OPERATOR": settings.operator,
            "DATABASE": settings.database,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from permslip.cli import main; main()",
            *words,
            "--json",
            env={**os.environ, **{f"PERMSLIP_BROKER__{name}": str(value) for name, value in told.items()}},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complained = await process.communicate()
        assert process.returncode == code, complained.decode()
        return json.loads(said) if code == 0 else complained.decode()

    async def erase(self, *options: str) -> tuple[Any, Any]:
        """At the broker, and at the school."""
        config = self.school.write_config(self.folder / "school")
        return (
            await self.command("broker", "erase", *options),
            await self.command("node", "erase", "--config", str(config), *options),
        )

    async def until_fit(self, node: RunningNode) -> None:
        """Wait until the node holds every push and has a lease."""
        broker = self.federation.root
        await until(
            lambda: (
                any(each.is_fit() for each in node.streams)
                and not node.recording.unconfirmed(broker)
                and node.pushes.held(broker) == node.streams[0].lease.push_count
            ),
            "the node is attached again",
        )


@asynccontextmanager
async def long_ago(folder: Path) -> AsyncIterator[Old]:
    federation = SmallFederation(folder, ahead=LONG_AGO)
    async with federation.running():
        await federation.admit_all()
        old = Old(folder, federation)
        school = old.school.organization
        await federation.admit(admit(federation.operator, school, now=federation.now()), school.cert)
        yield old


async def test_what_is_over_goes_beside_a_running_broker_and_a_running_node(tmp_path: Path) -> None:
    async with long_ago(tmp_path) as old, old.school.running() as node:
        federation = old.federation
        await old.until_fit(node)
        await old.link()
        over, revoked, last = [await old.consent() for _ in range(3)]
        queried, reason = await old.ask(over)
        assert reason == Reason.ALLOWED
        for each in (revoked, last):
            assert (await federation.revoke(federation.revocation(each)))[0].HasField("acknowledgement")
        federation.ahead = 0
        await old.until_fit(node)

        would = await old.erase("--older-than", "5", "--dry-run")
        done = await old.erase("--older-than", "5")

        # The newest revocation that the node acknowledged is what it asks for again: the broker keeps it.
        assert [each["grants"] for each in done] == [2, 3]
        assert [each["kept"] for each in done] == [1, 0]
        for told, happened in zip(would, done, strict=True):
            assert {**told, "dry_run": False, "entries": happened["entries"]} == happened
        assert (await old.ask(over))[1] == Reason.GRANT_UNKNOWN
        assert (await old.ask(last))[1] == Reason.GRANT_REVOKED
        await still_well(old, node, over, last)
        federation.ahead = 1_000
        assert (await old.ask(await old.consent()))[1] == Reason.ALLOWED
        await auditor_is_told(old, node, [over, revoked], queried)

    async with federation.running(), old.at_its_new_address().running() as node:
        await old.until_fit(node)


async def still_well(old: Old, node: RunningNode, over: Signed[pb.Grant], last: Signed[pb.Grant]) -> None:
    """Whatever comes about grants that were erased is answered, and stops nobody."""
    federation = old.federation
    # The broker keeps this grant and pushes its revocation; the node, which erased it, has nothing to act on.
    states = federation.revoking(federation.revocation(last))
    assert (await anext(aiter(states))).states[0].position
    states.cancel()
    await old.until_fit(node)
    [state] = await federation.revoke(federation.revocation(over))
    assert state.refusal.code == Reason.MALFORMED.wire
    # It is known by its id, and cannot be recorded a second time.
    [again] = (await federation.deposit(over)).results
    assert again.refusal.code == Reason.ALLOWED.wire
    assert not again.HasField("grant")
    assert (await old.ask(over))[1] == Reason.GRANT_UNKNOWN
    hello = await federation.hello(federation.mother)
    listed = await federation.guardian_calls.ListConsents(guardian_pb2.ListConsentsRequest(hello=hello))
    assert [st.restore(st.GRANT, last.id, each.grant.SerializeToString()).id for each in listed.grants] == [last.id]
    found = await federation.guardian_calls.ListAccesses(guardian_pb2.ListAccessesRequest(hello=hello))
    assert found.entries


async def auditor_is_told(old: Old, node: RunningNode, gone: list[Signed[pb.Grant]], queried: bytes) -> None:
    """Both ledgers hold, and say what is no more."""
    federation = old.federation
    auditor = Organization.new("State Auditor", pb.PRINCIPAL_KIND_AUDITOR, FEDERATION, now=federation.now())
    await federation.admit(admit(federation.operator, auditor, now=federation.now()), auditor.cert)
    await until(lambda: node.facts.standing(auditor.root) is not None, "the node knows the auditor")
    await old.until_fit(node)
    async with calling(
        federation.address, auditor, federation=FEDERATION, broker=federation.root, now=federation.now
    ) as calls:
        for ledger in (federation.root, old.school.root):
            leaves = await calls.entries(ledger)
            assert all(leaf_hash(each.leaf) == each.leaf_hash for each in leaves)
            found = await calls.statements(ledger)
            events = [entry_of(each) for each in leaves]
            erased = {i for each in events for i in each.statements_erased.statement_ids}
            assert {queried, *(each.id for each in gone)} <= erased
            assert {queried, *(each.id for each in gone)} <= set(found.erased)
            assert not erased & set(found.statements)


async def test_a_node_that_lost_what_it_held_is_told_so(tmp_path: Path) -> None:
    async with long_ago(tmp_path) as old:
        federation = old.federation
        async with federation.attached() as node:
            for _ in range(2):
                grant = await federation.endorsed_grant()
                await federation.revoke(federation.revocation(grant))
            assert node.pushes
        federation.ahead = 0
        assert (await old.command("broker", "erase", "--older-than", "5"))["grants"] == 1

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asyncio.wait_for(federation.node().run(federation.address), 20)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "erased" in (refused.value.details() or "")


async def test_nothing_is_erased_ahead_of_its_time_or_without_a_day(tmp_path: Path) -> None:
    async with long_ago(tmp_path) as old:
        for options in (
            ["--before", "2999-01-01"],
            ["--before", "soon"],
            [],
            ["--before", "2020-01-01", "--older-than", "3"],
        ):
            await old.command("broker", "erase", *options, code=2)
