"""What a parent sees of a school that exchanged its online key while it was off line."""

from __future__ import annotations

from pathlib import Path

import pytest

from permslip._pb.permslip.v1 import guardian_pb2, statement_pb2 as pb
from permslip.armor import read_statements
from permslip.grant_views import GrantStatus
from tests.e2e.sdk.three_schools import TERMS, ThreeSchools

pytestmark = pytest.mark.e2e


async def test_a_revocation_brought_by_hand_before_a_rotation_is_confirmed_to_the_parent_after_it(
    tmp_path: Path,
) -> None:
    async with ThreeSchools.running(tmp_path) as schools, schools.guardian("mother") as mother:
        await schools.link(mother, "Lincoln")
        consent = await mother.grant(schools.tutor_root, **TERMS)
        await schools.stop("Lincoln")
        await mother.revocation_file(consent, tmp_path / "revoke.txt")
        [revocation] = read_statements(tmp_path / "revoke.txt")
        async with schools.schools["Lincoln"].office() as office:
            await office.revoke(revocation)

        schools.schools["Lincoln"] = school = schools.schools["Lincoln"].rotated()
        await schools.start("Lincoln")
        request = guardian_pb2.RevokeRequest(revocations=[revocation])
        told = [response async for response in schools.federation.guardian_calls.Revoke(request, timeout=20)]

        [state] = told[-1].states
        acknowledgement = pb.Acknowledgement.FromString(state.acknowledgement.payload)
        assert acknowledgement.signer == school.organization.signer
        assert [view.status async for view in mother.grants()] == [GrantStatus.REVOKED]
