"""A learner comes of age: her mother's consents end at the school, and she gives her own with a wallet of her own."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from permslip.coverage import Held
from permslip.grant_views import GrantStatus
from permslip.reasons import Reason
from tests.e2e.sdk.three_schools import CHILD, TERMS, ThreeSchools

pytestmark = pytest.mark.e2e
SECTIONS = ["personal.attendance"]


async def test_who_came_of_age_consents_herself_and_the_tutor_reads_again(tmp_path: Path) -> None:
    async with (
        ThreeSchools.running(tmp_path) as schools,
        schools.guardian("mother") as mother,
        schools.guardian("Mia") as mia,
    ):
        await schools.link(mother, "Lincoln")
        await mother.grant(schools.tutor_root, **TERMS)
        async with schools.tutor() as tutor:
            [before] = (await tutor.profile("learner-17", sections=SECTIONS)).coverage
            async with schools.schools["Lincoln"].office() as office:
                assert await office.noticed(await office.majority(CHILD, date(2020, 1, 1)), patience=20)
            [refused] = (await tutor.profile("learner-17", sections=SECTIONS)).coverage

        await schools.link(mia, "Lincoln", person="self")
        await mia.grant(schools.tutor_root, **TERMS)

        async with schools.tutor() as tutor:
            [after] = (await tutor.profile("learner-17", sections=SECTIONS)).coverage
        assert (before.state, before.returned) == (Held.RETURNED, 7)
        assert (refused.state, refused.reason) == (Held.DENIED, Reason.AUTHORITY_ENDED)
        assert (after.state, after.returned) == (Held.RETURNED, 7)
        assert [each.status async for each in mother.grants()] == [GrantStatus.AUTHORITY_ENDED]
