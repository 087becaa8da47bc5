"""A school's node that lies about its own ledger, with its own keys: what it hides, the broker's ledger tells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from permslip._pb.permslip.v1 import guardian_pb2, statement_pb2 as pb
from permslip.client.access_joining import NOT_SERVED
from permslip.client.guarding import AsyncGuardianClient
from permslip.client.providing import AsyncClient
from permslip.errors import AuthorityError, PermslipError, ProofError
from permslip.hosting.ledger_reading import SliceEntry
from permslip.keys import SigningKey
from permslip.statements import Signed
from permslip_node.slice_answers import SliceAnswers
from tests.e2e.sdk.three_schools import TERMS, ThreeSchools

pytestmark = pytest.mark.e2e


@pytest.fixture
async def schools(tmp_path: Path) -> AsyncIterator[ThreeSchools]:
    async with ThreeSchools.running(tmp_path) as running:
        yield running


@pytest.fixture
async def mother(schools: ThreeSchools) -> AsyncIterator[AsyncGuardianClient]:
    async with schools.guardian("mother") as client:
        yield client


@pytest.fixture
async def tutor(schools: ThreeSchools) -> AsyncIterator[AsyncClient]:
    async with schools.tutor() as client:
        yield client


async def read_once(schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient) -> None:
    """The mother grants, the tutor reads, and both ledgers say how it ended."""
    await schools.link(mother, "Lincoln")
    await mother.grant(schools.tutor_root, **TERMS)
    assert (await tutor.profile("learner-17", sections=["personal.attendance"])).attendance
    while any(
        each.broker is None or each.school is None or None in (each.broker.ended, each.school.ended)
        for each in await mother.accesses()
    ):
        pass


class LyingAnswers(SliceAnswers):
    """A node's own word, and what its keeper makes of it."""

    def __init__(self, honest: SliceAnswers) -> None:
        self.__dict__.update(honest.__dict__)
        self.kept: list[bytes] = []


class LeavesOneOut(LyingAnswers):
    """An entry is left out of the page; the end is true."""

    def _page(self, handle: bytes, after: int, limit: int) -> list[SliceEntry]:
        entries = super()._page(handle, after, limit)
        return [each for each in entries if each.seq != 4]


class EndsEarly(LyingAnswers):
    """The last two entries (an access and its end) are as if they had never been; the end says so too, signed."""

    def _end(self, handle: bytes) -> tuple[SliceEntry | None, int]:
        end, size = super()._end(handle)
        assert end is not None
        [earlier] = self._recording.ledger.slice_entries(self._identity.root, handle, end.seq - 3, 1)
        return earlier, size


class SaysMore(LyingAnswers):
    """The chain is said to reach farther than what is given."""

    def _end(self, handle: bytes) -> tuple[SliceEntry | None, int]:
        end, size = super()._end(handle)
        assert end is not None
        return end._replace(seq=end.seq + 1), size


class AnswersWithAnOldWord(LyingAnswers):
    """The first answer that it ever gave, sealed anew."""

    def _read(self, request: guardian_pb2.ReadNodeLedgerRequest, hello: Signed[pb.Hello]) -> bytes:
        self.kept.append(super()._read(request, hello))
        return self.kept[0]


class SignsWithAnotherKey(LyingAnswers):
    """A key that its root never certified."""

    def __init__(self, honest: SliceAnswers) -> None:
        super().__init__(honest)
        key = SigningKey.generate()
        signer = pb.Signer(root=self._identity.root, key=key.public.raw)
        self._identity = replace(self._identity, key=key, signer=signer)


class ShowsAnotherTree(LyingAnswers):
    """A checkpoint of a tree in which the entries are not."""

    def _checkpoint(self, size: int) -> bytes:
        return super()._checkpoint(size - 1)


Lying = Callable[[SliceAnswers], SliceAnswers]


def let_lie(schools: ThreeSchools, lying: Lying) -> None:
    node: Any = schools.nodes["Lincoln"]
    node.slice_answers = lying(node.slice_answers)


@pytest.mark.parametrize(
    ("lying", "error"),
    [
        (LeavesOneOut, ProofError),
        (SaysMore, ProofError),
        (AnswersWithAnOldWord, AuthorityError),
        (SignsWithAnotherKey, PermslipError),
        (ShowsAnotherTree, ProofError),
    ],
)
async def test_a_school_that_lies_about_its_own_chain_is_not_believed(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient, lying: Lying, error: type[PermslipError]
) -> None:
    await read_once(schools, mother, tutor)
    let_lie(schools, lying)
    if lying is AnswersWithAnOldWord:
        await mother.accesses()

    report = await mother.accesses()

    [slice_report] = report.slices
    assert isinstance(slice_report.error, error)
    assert slice_report.is_false
    assert [each.school for each in report] == [None], "nothing of it is believed"
    assert list(report.findings) == [slice_report.text]


async def test_an_access_that_the_school_never_had_is_told_by_the_broker(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await read_once(schools, mother, tutor)
    let_lie(schools, EndsEarly)

    report = await mother.accesses()

    [access] = report
    [slice_report] = report.slices
    assert slice_report.error is None, "its chain is whole, by its own signed word"
    assert (access.school, access.difference) == (None, NOT_SERVED)
    assert [NOT_SERVED in each for each in report.findings] == [True]


async def test_a_school_with_new_keys_is_believed_by_its_new_certificate(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await read_once(schools, mother, tutor)
    await schools.stop("Lincoln")
    rotated = schools.schools["Lincoln"].rotated()
    schools.schools["Lincoln"] = rotated
    await schools.federation.admit(rotated.organization.cert)
    await schools.start("Lincoln")

    report = await mother.accesses()

    assert (report.is_complete, report.findings) == (True, ())
    assert report.slices[0].end is not None
    assert report.slices[0].end.payload.signer.key == rotated.organization.key.public.raw
