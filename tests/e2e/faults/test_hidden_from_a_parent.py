"""Who hides an access from a parent is caught by the other ledger, by the chain's numbers, or by the school's own word.

The processes are real; the lying broker stands between the parent and the honest one. What a lying node says of its own
ledger is in ``tests/e2e/sdk/test_lying_school.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, statement_pb2 as pb
from permslip.client.access_joining import NOT_ROUTED
from permslip.client.accesses import AccessReport
from permslip.client.guarding import AsyncGuardianClient
from permslip.client.timeouts import Timeout
from permslip.errors import AuthorityError, PermslipError, ProofError, RefusedError, SealError, UnavailableError
from permslip.keyfile import PrincipalKind, StoredKeys
from permslip.keys import did_text
from permslip.sealing import seal
from permslip.slice_chains import chain_context
from permslip.wallet import GivenGrant, LinkedSlice, Wallet
from tests.federation.district import ATTENDANCE, District
from tests.federation.lying_broker import Line, LyingBroker
from tests.federation.processes import now

pytestmark = pytest.mark.e2e

Listed = guardian_pb2.ListAccessesResponse
Told = guardian_pb2.ReadNodeLedgerResponse


def place(district: District) -> LinkedSlice:
    """The child's slice at the high school, as a wallet would have it."""
    high = district.high
    return LinkedSlice(high.root, district.handles[high.root], "Ada", "Ada", high.name)


async def read_once(district: District) -> bytes:
    """The tutor reads at the high school; returns the query's id, once both ledgers say how it ended."""
    [grant] = await district.consent(district.high)
    asked = district.query(grant, [ATTENDANCE])
    async with district.requester() as tutor:
        await tutor.ask(asked)
    await district.endings(district.broker_ledger, asked.id)
    await district.endings(district.high.ledger, asked.id)
    return bytes(asked.id)


async def told(district: District, liar: LyingBroker | None = None) -> AccessReport:
    """What the mother is told of the high school."""
    async with district.guardian(address=liar.address if liar is not None else "") as mother:
        return await mother.accesses([place(district)])


def without(page: Listed, *places: int) -> Listed:
    """A page with entries left out, counted from its end as in a list."""
    for each in sorted(range(len(page.entries))[each] for each in places)[::-1]:
        del page.entries[each]
        del page.proofs[each]
    return page


async def test_on_honest_ledgers_nothing_is_found(district: District) -> None:
    query_id = await read_once(district)

    report = await told(district)

    assert (report.is_complete, report.findings) == (True, ())
    [access] = [each for each in report if each.query_id == query_id]
    assert access.broker is not None
    assert access.school is not None
    assert access.released == access.broker.sealed_bytes > 0


async def test_an_entry_that_the_broker_leaves_out_is_a_hole(district: District) -> None:
    await read_once(district)
    async with district.lying() as liar:
        liar.down["ListAccesses"] = lambda page, _line: without(page, -2)
        with pytest.raises(ProofError, match="left out"):
            await told(district, liar)


async def test_a_chain_that_the_broker_ends_early_is_told_by_the_school(district: District) -> None:
    query_id = await read_once(district)

    def end_early(page: Listed, _line: Line) -> Listed:
        last = page.entries[-3]
        page.heads[0].slice_seq -= 2
        page.heads[0].leaf_hash = last.leaf_hash
        return without(page, -2, -1)

    async with district.lying() as liar:
        liar.down["ListAccesses"] = end_early
        report = await told(district, liar)

    [access] = [each for each in report if each.query_id == query_id]
    assert (access.broker, access.difference) == (None, NOT_ROUTED)
    assert [NOT_ROUTED in each for each in report.findings] == [True]


async def test_a_slice_that_the_broker_passes_over_is_missed(district: District) -> None:
    await read_once(district)

    def pass_over(page: Listed, _line: Line) -> Listed:
        page.ClearField("heads")
        page.ClearField("entries")
        page.ClearField("proofs")
        return page

    async with district.lying() as liar:
        liar.down["ListAccesses"] = pass_over
        with pytest.raises(ProofError, match="does not say where the chain"):
            await told(district, liar)


async def test_a_broker_that_denies_her_consent_is_told_by_the_school(district: District, tmp_path: Path) -> None:
    """It says nothing at all of a slice; what she signed is in her wallet, what came of it in the school's ledger."""
    [grant] = await district.consent(district.high)
    asked = district.query(grant, [ATTENDANCE])
    async with district.requester() as tutor:
        await tutor.ask(asked)
    wallet = Wallet.create(tmp_path / "wallet")
    wallet.add_slice(place(district))
    given = GivenGrant(grant.id, b"", district.high.root, place(district).handle, b"", "", "Ada", "", "", "", 0, 0)
    wallet.add_grants([given])

    def deny(request: guardian_pb2.ListAccessesRequest, _line: Line) -> guardian_pb2.ListAccessesRequest:
        for each in request.slices:
            each.handle = bytes(16)
        return request

    async with district.lying() as liar, guardian_of(district, wallet, liar, known=True) as mother:
        liar.up["ListAccesses"] = deny
        report = await mother.accesses()

    assert not next(each for each in report.slices if each.node == district.high.root).broker_tells
    [access] = [each for each in report if each.query_id == asked.id]
    assert (access.broker, access.difference) == (None, NOT_ROUTED)


def guardian_of(
    district: District, wallet: Wallet, liar: LyingBroker | None = None, *, known: bool = False
) -> AsyncGuardianClient:
    """A guardian's client with a wallet: a stranger's, unless it is the mother's own key."""
    mother = StoredKeys(PrincipalKind.GUARDIAN, district.mother.key, district.mother.sealing)
    return AsyncGuardianClient(
        broker=liar.address if liar is not None else district.address,
        broker_root=did_text(district.root),
        federation=district.federation,
        operator=did_text(district.processes.operator.public),
        wallet=wallet,
        keys=mother if known else None,
    )


async def test_a_stranger_is_told_nothing_by_broker_or_school(district: District, tmp_path: Path) -> None:
    await read_once(district)
    wallet = Wallet.create(tmp_path / "wallet")
    async with guardian_of(district, wallet) as stranger:
        with pytest.raises(RefusedError) as caught:
            await stranger.accesses([place(district)])
    assert caught.value.code == "NOT_ALLOWED"

    # One who pretends to be linked there.
    wallet.add_slice(place(district))
    async with guardian_of(district, wallet) as stranger:
        report = await stranger.accesses()
    [slice_report] = report.slices
    assert isinstance(slice_report.error, RefusedError)
    assert (slice_report.error.code, slice_report.broker_tells) == ("NOT_ALLOWED", False)
    assert (len(report), report.entries, report.findings) == (0, (), ())


class Carrier:
    """What the broker may do with a school's sealed word: it knows the greeting, and not what is sealed."""

    def __init__(self, district: District, liar: LyingBroker) -> None:
        self.district, self.liar = district, liar
        self.hello = pb.Hello()
        self.hello_id = b""
        self.kept: list[bytes] = []
        liar.up["ReadNodeLedger"] = self._see

    def _see(self, request: guardian_pb2.ReadNodeLedgerRequest, _line: Line) -> guardian_pb2.ReadNodeLedgerRequest:
        signed = st.verify(st.HELLO, request.hello, federation=self.district.federation)
        self.hello, self.hello_id = signed.payload, signed.id
        return request

    def repeat(self, response: Told, _line: Line) -> Told:
        """Always the first one."""
        self.kept.append(response.sealed)
        return Told(sealed=self.kept[0])

    def forge(self, _response: Told, _line: Line) -> Told:
        """One of its own: the right greeting, sealed to the right key, signed by itself."""
        high = self.district.high
        payload = pb.ChainEnd(
            federation=self.district.federation,
            nonce=os.urandom(16),
            created_at=now(),
            signer=self.liar.signer,
            hello_id=self.hello_id,
            slice=pb.Slice(node=high.root, handle=self.district.handles[high.root]),
            ledger_size=1,
        )
        signed = st.sign(st.CHAIN_END, payload, [self.liar.key])
        forged = guardian_pb2.SliceLedger(chain_end=signed.envelope)
        return Told(sealed=seal(self.hello.reply_key, forged.SerializeToString(), context=chain_context(self.hello_id)))

    def in_its_name(self, _response: Told, _line: Line) -> Told:
        """The same in the school's name, by a key that the school never had."""
        self.liar.cert.root, kept = self.district.high.root, self.liar.cert.root
        try:
            return self.forge(_response, _line)
        finally:
            self.liar.cert.root = kept

    def spoil(self, response: Told, _line: Line) -> Told:
        """One bit."""
        raw = bytearray(response.sealed)
        raw[-1] ^= 1
        return Told(sealed=bytes(raw))


Lie = Callable[[Carrier, Told, Line], Told]


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (Carrier.repeat, SealError),
        (Carrier.forge, AuthorityError),
        (Carrier.in_its_name, AuthorityError),
        (Carrier.spoil, SealError),
    ],
)
async def test_a_schools_word_that_the_broker_replays_forges_or_alters_is_not_believed(
    district: District, lie: Lie, error: type[PermslipError]
) -> None:
    await read_once(district)
    async with district.lying() as liar:
        carrier = Carrier(district, liar)
        if lie is Carrier.repeat:
            liar.down["ReadNodeLedger"] = carrier.repeat
            await told(district, liar)
        liar.down["ReadNodeLedger"] = lambda message, line: lie(carrier, message, line)
        report = await told(district, liar)

    [slice_report] = report.slices
    assert isinstance(slice_report.error, error)
    assert slice_report.is_false
    assert [slice_report.text] == list(report.findings)
    assert {each.school for each in report} == {None}, "nothing of it is believed"


async def test_a_broker_that_exchanges_the_reply_key_gets_nothing_and_the_parent_is_told(district: District) -> None:
    await read_once(district)

    def exchange(request: guardian_pb2.ReadNodeLedgerRequest, _line: Line) -> guardian_pb2.ReadNodeLedgerRequest:
        hello = pb.Hello.FromString(request.hello.payload)
        hello.reply_key = os.urandom(31) + b"\x00"
        request.hello.payload = hello.SerializeToString(deterministic=True)
        return request

    async with district.lying() as liar:
        liar.up["ReadNodeLedger"] = exchange
        report = await told(district, liar)

    [slice_report] = report.slices
    assert slice_report.error is not None
    assert (slice_report.school, slice_report.end) == ((), None)
    assert "the school's own count could not be had" in report.text


async def test_a_school_that_is_down_is_said_to_be_and_its_accesses_are_told_by_the_broker(
    district: District,
) -> None:
    query_id = await read_once(district)
    district.high.kill()
    await district.until_detached(district.high)

    async with district.guardian(timeout=Timeout(call=10.0)) as mother:
        report = await mother.accesses([place(district)])

    [slice_report] = report.slices
    assert isinstance(slice_report.error, UnavailableError)
    assert not slice_report.is_false
    assert "the school's own count could not be had" in report.text
    [access] = [each for each in report if each.query_id == query_id]
    assert (access.school, access.released, report.findings, report.is_complete) == (None, None, (), False)


async def test_a_frozen_school_is_waited_for_no_longer_than_the_broker_allows(district: District) -> None:
    await read_once(district)
    district.high.freeze()
    async with district.guardian(timeout=Timeout(call=60.0)) as mother:
        report = await mother.accesses([place(district)])
    [slice_report] = report.slices
    assert isinstance(slice_report.error, UnavailableError)


async def test_without_a_wallet_the_broker_says_where_she_has_consents(district: District) -> None:
    await read_once(district)

    async with district.guardian() as mother:
        report = await mother.accesses()

    assert report.is_complete
    assert "high" in {each.node_name for each in report.slices}
