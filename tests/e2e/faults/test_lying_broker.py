"""A broker that lies with its own keys. Each lie is caught by the party that is named, with the error that is named.

The processes are real; the liar stands between them and the honest broker (:mod:`tests.federation.lying_broker`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import (
    guardian_pb2,
    node_pb2,
    provider_pb2,
    record_pb2,
    session_pb2,
    statement_pb2 as pb,
)
from permslip.client.timeouts import Timeout
from permslip.coverage import Held
from permslip.dsse import statement_id
from permslip.errors import AuthorityError, KeyRejectedError, PermslipError
from permslip.keys import SealingKey, SigningKey
from permslip.profile import Profile
from permslip.reasons import Reason
from permslip.sections import expand
from permslip.slices import SliceWriter
from permslip.statements import Signed
from tests.federation.district import ATTENDANCE, CHILD, District
from tests.federation.lying_broker import Line, LyingBroker
from tests.federation.processes import now
from tests.federation.school_process import LEASE_MS, SchoolProcess, until

pytestmark = pytest.mark.e2e


class Smuggler:
    """Routes queries to a node past the honest broker, which would refuse them."""

    def __init__(self, liar: LyingBroker) -> None:
        self._liar = liar
        self._asked: dict[bytes, asyncio.Future[provider_pb2.Outcome]] = {}
        liar.up["Attach"] = self._keep

    async def ask(self, envelope: pb.Envelope, *, times: int = 1) -> list[Reason]:
        """Send a query so often; why each answer ended."""
        line = [each for each in self._liar.lines if each.method == "Attach"][-1]
        query_id = statement_id(envelope.payload_type, envelope.payload)
        reasons = []
        for _ in range(times):
            outcome = self._asked[query_id] = asyncio.get_running_loop().create_future()
            routed = node_pb2.RoutedQuery(query=envelope, position=1, deadline=10_000)
            await line.say_down(node_pb2.AttachResponse(frames=[node_pb2.BrokerFrame(query=routed)]))
            async with asyncio.timeout(20):
                reasons.append(Reason((await outcome).refusal.code))
        return reasons

    def _keep(self, message: node_pb2.AttachRequest, _line: Line) -> node_pb2.AttachRequest | None:
        kept = []
        for frame in message.frames:
            outcome = self._asked.get(frame.answer.query_id)
            if outcome is None:
                kept.append(frame)
            elif frame.answer.HasField("outcome") and not outcome.done():
                outcome.set_result(frame.answer.outcome)
        return node_pb2.AttachRequest(frames=kept) if kept else None


class Withholding:
    """Keeps the revocation of one grant from a node.

    Args:
        liar: who keeps it.
        grant: whose.
        ticks_lie: ticks do not count it either.
    """

    def __init__(self, liar: LyingBroker, grant: Signed[pb.Grant], *, ticks_lie: bool) -> None:
        self._liar, self._grant, self._ticks_lie = liar, grant, ticks_lie
        self.numbers: list[int] = []
        self.ticks = 0
        """Ticks that went to the node since."""
        liar.down["Attach"] = self._alter

    def _alter(self, message: node_pb2.AttachResponse, _line: Line) -> node_pb2.AttachResponse | None:
        kept = []
        for frame in message.frames:
            if self._is_it(frame.push.statement):
                self.numbers.append(frame.push.number)
                continue
            if frame.HasField("tick") and self.numbers:
                self.ticks += 1
                if self._ticks_lie:
                    tick = pb.Tick.FromString(frame.tick.payload)
                    tick.push_count = self.numbers[0] - 1
                    frame.tick.CopyFrom(self._liar.sign_tick(tick))
            kept.append(frame)
        return node_pb2.AttachResponse(frames=kept) if kept else None

    def _is_it(self, pushed: pb.Envelope) -> bool:
        if pushed.payload_type != st.REVOCATION.payload_type:
            return False
        return pb.Revocation.FromString(pushed.payload).target_id == self._grant.id


# ------------------------------------------------------------------------------------------- to a node


async def test_a_withheld_revocation_stays_unconfirmed_until_the_parent_goes_the_direct_way(
    district: District, tmp_path: Path
) -> None:
    """The bound that is said openly: ticks that lie hide a revocation from the node, never from the parent."""
    high = district.high
    [grant] = await district.consent(high)
    async with district.lied_to(high) as liar:
        smuggler = Smuggler(liar)
        paper = tmp_path / "revocation.txt"
        async with district.guardian(timeout=Timeout(call=2.0)) as mother:
            withholding = Withholding(liar, grant, ticks_lie=True)
            states = [each async for each in mother.revoke(grant.id)]
            assert len(withholding.numbers) == 1
            assert states[-1].text == "0 of 1 place confirmed, 1 has not answered yet."
            assert await smuggler.ask(district.query(grant, [ATTENDANCE]).envelope) == [Reason.ALLOWED]

            # The very statement that the broker keeps back, carried to the school.
            await mother.revocation_file(grant.id, paper)
            done = await asyncio.to_thread(
                district.processes.command, "node", "revoke", str(paper), "--config", str(high.config)
            )
            assert done["in_force"]
            assert await smuggler.ask(district.query(grant, [ATTENDANCE]).envelope) == [Reason.GRANT_REVOKED]
            states = [each async for each in mother.revoke(grant.id)]
    assert states[-1].is_complete, "the node's own word came up, whatever the broker had kept back"


async def test_a_node_from_which_a_counted_revocation_is_withheld_answers_nobody(district: District) -> None:
    high = district.high
    [grant, other] = [*await district.consent(high), *await district.consent(high)]
    async with district.lied_to(high) as liar:
        revocation = district.revocation(grant)
        withholding = Withholding(liar, grant, ticks_lie=False)
        assert not (await district.begin_to_revoke(revocation)).HasField("acknowledgement")
        await until(lambda: withholding.ticks, "a tick counts what is kept back")
        async with district.requester() as tutor:
            answer = await tutor.ask(district.query(other, [ATTENDANCE]))
        assert (answer.reason, answer.outcome.said_by) == (Reason.NO_LEASE, high.root)
    assert (await district.revoke(revocation)).HasField("acknowledgement"), "caught up, it acknowledges"


async def test_a_stale_tick_makes_no_lease(district: District) -> None:
    high = district.high
    [grant] = await district.consent(high)
    kept: list[pb.Envelope] = []

    def repeat(message: node_pb2.AttachResponse, _line: Line) -> node_pb2.AttachResponse:
        for frame in message.frames:
            if frame.HasField("tick"):
                kept.append(frame.tick)
                frame.tick.CopyFrom(kept[0])
        return message

    async with district.lied_to(high) as liar, district.requester() as tutor:
        before = len(high.said("tick_refused"))
        liar.down["Attach"] = repeat
        # A request for each of them went out at least 100 ms after the one before: a whole lease has passed.
        refused = await high.until_said("tick_refused", more_than=before + LEASE_MS // 100)
        assert "answers no lease request that is open" in refused[-1]["why"]
        answer = await tutor.ask(district.query(grant, [ATTENDANCE]))
    assert (answer.reason, answer.outcome.said_by) == (Reason.NO_LEASE, high.root)


async def test_a_query_that_the_broker_altered_or_repeats_is_refused_by_the_node(district: District) -> None:
    high = district.high
    [grant] = await district.consent(high)
    async with district.lied_to(high) as liar:
        smuggler = Smuggler(liar)
        asked = district.query(grant, [ATTENDANCE])
        widened = pb.Query.FromString(asked.envelope.payload)
        widened.sections[:] = ["transcript"]
        altered = pb.Envelope()
        altered.CopyFrom(asked.envelope)
        altered.payload = widened.SerializeToString(deterministic=True)
        assert await smuggler.ask(altered) == [Reason.BAD_SIGNATURE]
        foreign = district.query(grant, [ATTENDANCE], federation="another.example")
        assert await smuggler.ask(foreign.envelope) == [Reason.WRONG_FEDERATION]
        assert await smuggler.ask(asked.envelope, times=2) == [Reason.ALLOWED, Reason.QUERY_REPLAYED]


# -------------------------------------------------------------------------------------- to a requester


async def read_through(district: District, liar: LyingBroker, *schools: SchoolProcess) -> Profile:
    """One profile of some schools, as the liar passes it on."""
    grants = await district.consent(*schools, sections=[ATTENDANCE])
    async with district.client(address=liar.address) as client:
        views = [view async for view in client.grants(*(each.id for each in grants))]
        return await client.profile(views, sections=[ATTENDANCE])


def faults(profile: Profile) -> dict[str, PermslipError]:
    """What must not be believed; nothing of it is in the profile, and its sections are not «none held»."""
    found = dict(profile.faults)
    assert not [each for each in profile.entries if each.node_name in found]
    assert {each.state for each in profile.coverage if each.node_name in found} == {Held.UNREACHABLE}
    return found


async def test_a_swapped_answer_is_caught_by_the_reader(district: District) -> None:
    asked: dict[bytes, provider_pb2.ExchangeCall] = {}

    def gather(message: provider_pb2.ExchangeRequest, _line: Line) -> provider_pb2.ExchangeRequest | None:
        """Both queries go on together, so that it is known what is swapped with what; nothing is taken back."""
        kept = [each for each in message.calls if not each.HasField("query") and not each.HasField("cancel")]
        queries = [each for each in message.calls if each.HasField("query")]
        for call in queries:
            asked[statement_id(call.query.query.payload_type, call.query.query.payload)] = call
        if queries and len(asked) == 2:
            kept += asked.values()
        return provider_pb2.ExchangeRequest(calls=kept) if kept else None

    def swap(message: provider_pb2.ExchangeResponse, _line: Line) -> provider_pb2.ExchangeResponse:
        for reply in message.replies:
            if reply.HasField("answer"):
                [reply.answer.query_id] = set(asked) - {reply.answer.query_id}
        return message

    async with district.lying() as liar:
        liar.up["Exchange"], liar.down["Exchange"] = gather, swap
        caught = faults(await read_through(district, liar, *district.schools))
    assert set(caught) == {"high", "platform"}
    for error in caught.values():
        assert isinstance(error, AuthorityError)
        assert "it is about another query or grant" in error.message


@pytest.mark.parametrize(
    ("in_the_name_of", "error", "words"),
    [
        ("the broker", AuthorityError, "not signed by the node that the grant names"),
        ("the node", KeyRejectedError, "not the organization's current key"),
    ],
)
async def test_records_that_the_broker_seals_to_the_reply_key_are_caught_by_the_reader(
    district: District, in_the_name_of: str, error: type[PermslipError], words: str
) -> None:
    queries: list[Signed[pb.Query]] = []

    def note(message: provider_pb2.ExchangeRequest, _line: Line) -> provider_pb2.ExchangeRequest:
        queries.extend(
            st.verify(st.QUERY, call.query.query, federation=district.federation)
            for call in message.calls
            if call.HasField("query")
        )
        return message

    def inject(message: provider_pb2.ExchangeResponse, _line: Line) -> provider_pb2.ExchangeResponse:
        for reply in message.replies:
            if reply.HasField("answer"):
                root = liar.signer.root if in_the_name_of == "the broker" else district.high.root
                reply.answer.CopyFrom(invented(queries[0], pb.Signer(root=root, key=liar.signer.key), liar.key))
        return message

    async with district.lying() as liar:
        liar.up["Exchange"], liar.down["Exchange"] = note, inject
        caught = faults(await read_through(district, liar, district.high))
    assert set(caught) == {"high"}
    assert isinstance(caught["high"], error)
    assert words in str(caught["high"])


def invented(query: Signed[pb.Query], signer: pb.Signer, key: SigningKey) -> provider_pb2.Answer:
    """A whole answer that somebody makes up who knows no more than the query."""
    writer = SliceWriter(query, signer=signer, key=key, now=now())
    record = record_pb2.Record(record_id=bytes(16), section=ATTENDANCE, recorded_at=now(), version=1)
    record.attendance.event = "Expelled"
    part = record_pb2.SlicePart(records=[record]).SerializeToString(deterministic=True)
    chunks = writer.add(part, 1)
    covered = [
        pb.SectionCoverage(section=path, reason=Reason.ALLOWED.wire, returned=1)
        for path in expand(query.payload.sections)
    ]
    rest, manifest = writer.finish(covered, slice_seq=1, now=now())
    outcome = provider_pb2.Outcome(
        refusal=session_pb2.Refusal(code=Reason.ALLOWED.wire),
        manifest_sha256=manifest.sha256,
        said_by=signer.root,
    )
    return provider_pb2.Answer(query_id=query.id, opening=writer.opening, chunks=[*chunks, *rest], outcome=outcome)


# --------------------------------------------------------------------------------------- to a guardian


@pytest.mark.parametrize("how", ["certified by the broker's own root", "certified in the school's name, and forged"])
async def test_a_key_supplied_in_place_of_the_node_s_at_linking_is_caught_by_the_parent(
    district: District, how: str
) -> None:
    slip = district.high.slip(CHILD)

    async with district.lying() as liar:
        root = SigningKey.generate()
        named = root.public.raw if how.endswith("root") else district.high.root

        def supply(message: session_pb2.ListDirectoryResponse, _line: Line) -> session_pb2.ListDirectoryResponse:
            for entry in message.entries:
                entry.key_cert.CopyFrom(own_cert(district.federation, named, root))
            return message

        liar.down["ListDirectory"] = supply
        async with district.guardian(address=liar.address) as mother:
            with pytest.raises(KeyRejectedError, match="not the one on the slip"):
                await mother.link(slip.text())
            assert "RelayLink" not in {each.method for each in liar.lines}, "nothing was sealed to the wrong key"
            liar.down.clear()
            linked = await mother.link(slip.text())
    assert linked.handle == district.handles[district.high.root]


def own_cert(federation: str, named: bytes, root: SigningKey) -> pb.Envelope:
    """A certificate for keys that the broker holds, in the name of a root that may not be its own."""
    payload = pb.KeyCert(
        federation=federation,
        nonce=os.urandom(16),
        created_at=now(),
        root=root.public.raw,
        signing_key=SigningKey.generate().public.raw,
        sealing_key=SealingKey.generate().public,
        seq=1_000,
        valid_until=now() + 86_400_000,
    )
    envelope = st.sign(st.KEY_CERT, payload, [root]).envelope
    if named != payload.root:
        payload.root = named
        envelope.payload = payload.SerializeToString(deterministic=True)
        envelope.signatures[0].key = named
    return envelope


@pytest.mark.parametrize(("in_the_name_of", "error"), [("the broker", AuthorityError), ("the node", KeyRejectedError)])
async def test_an_acknowledgement_that_the_broker_makes_up_confirms_nothing(
    district: District, in_the_name_of: str, error: type[PermslipError]
) -> None:
    [grant] = await district.consent(district.high)
    async with district.lying() as liar:
        root = liar.signer.root if in_the_name_of == "the broker" else district.high.root
        liar.down["Revoke"] = making_up(liar, district, grant, pb.Signer(root=root, key=liar.signer.key))
        async with district.guardian(address=liar.address, timeout=Timeout(call=2.0)) as mother:
            states = [each async for each in mother.revoke(grant.id)]
            assert {each.confirmed for each in states} == {0}
            assert isinstance(states[-1].grants[0].error, error)
            liar.down.clear()
            states = [each async for each in mother.revoke(grant.id)]
    assert states[-1].is_complete


def making_up(
    liar: LyingBroker, district: District, grant: Signed[pb.Grant], signer: pb.Signer
) -> Callable[[guardian_pb2.RevokeResponse, Line], guardian_pb2.RevokeResponse]:
    """In place of the node's word, one of the broker's own making."""

    def make_up(message: guardian_pb2.RevokeResponse, _line: Line) -> guardian_pb2.RevokeResponse:
        for state in message.states:
            payload = pb.Acknowledgement(
                federation=district.federation,
                nonce=os.urandom(16),
                created_at=now(),
                signer=signer,
                statement_id=state.revocation_id,
                target_id=grant.id,
                ledger_size=1,
            )
            state.acknowledgement.CopyFrom(st.sign(st.ACKNOWLEDGEMENT, payload, [liar.key]).envelope)
        return message

    return make_up
