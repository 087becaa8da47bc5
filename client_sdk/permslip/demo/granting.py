"""Acts of the families: parents link by slip, and grant to a tutor, a therapist and a summer programme."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from permslip.client.consenting import Consent
from permslip.demo.families import Family, choose_families, link_all
from permslip.demo.federation import NodeParty, ProviderParty
from permslip.demo.stage import Given, Stage
from permslip.grant_views import GrantStatus

__all__ = ["NARROW_SECTION", "SUMMER_SECTIONS", "TUTOR_SECTIONS", "grant_all", "link_families", "terms_for"]

TUTOR_SECTIONS: Final = (
    "personal.assessments",
    "personal.work_habits",
    "transcript.assessments",
    "transcript.courses",
    "transcript.grades",
)
NARROW_SECTION: Final = "personal.attendance"
SUMMER_SECTIONS: Final = ("personal", "transcript.courses")

_AT_ONCE: Final = 8
_FAMILIES: Final = 24
_FAMILIES_OF_REAL_DATA: Final = 60
_THERAPIST_EVERY: Final = 3
_SUMMER_EVERY: Final = 4


@dataclass(frozen=True, slots=True)
class _Wish:
    """What one provider asks parents for."""

    provider: ProviderParty
    sections: tuple[str, ...]
    purpose: str
    text: str
    days: int
    max_uses: int = 0
    erase_within_days: int = 30


async def link_families(stage: Stage, rosters: Sequence[tuple[NodeParty, list[dict[str, Any]]]]) -> None:
    """The schools print slips, and parents link."""
    narrator = stage.narrator
    narrator.act("Parents link by slip")
    narrator.say(
        "A school prints a slip and hands it over. It carries the school's own key and a secret that is never sent: "
        "the broker relays what it can neither read, nor guess, nor redirect. Of families it learns nothing."
    )
    wanted = stage.options.families or (_FAMILIES if stage.options.data is None else _FAMILIES_OF_REAL_DATA)
    stage.families = choose_families(stage.federation, rosters, count=wanted)
    guardians = sum(len(family.guardians) for family in stage.families)
    with narrator.progress("linking", guardians) as advance:
        links = await link_all(stage.federation, stage.families, advance)
    both = sum(len(family.guardians) > 1 for family in stage.families)
    shared = sum(len(family.nodes) > 1 for family in stage.families)
    narrator.done(
        f"{guardians} guardians of {len(stage.families)} learners made {links} links; {shared} learners are known to a "
        f"school and to the platform; of {both} both guardians linked"
    )
    stage.expect(bool(shared) and bool(both), "some learners are known twice, and some have two guardians who linked")


async def grant_all(stage: Stage) -> None:
    """Parents grant."""
    narrator = stage.narrator
    narrator.act("Parents grant")
    wishes = _wishes(stage)
    wanted = [
        (family, wish)
        for number, family in enumerate(stage.families)
        for wish, every in zip(wishes, (1, _THERAPIST_EVERY, _SUMMER_EVERY), strict=True)
        if number % every == 0
    ]
    await _show_words(stage, stage.families[0], wishes[0])
    with narrator.progress("granting", len(wanted)) as advance:
        stage.given = await _give_all(stage, wanted, advance)
    grants = [view for each in stage.given for view in each.consent.grants]
    stage.report.grants = sum(view.status is GrantStatus.ACTIVE for view in grants)
    narrator.table(
        ("granted to", "what", "for so long", "consents"),
        [
            (wish.provider.name, ", ".join(wish.sections), f"{wish.days} days", len(stage.given_to(wish.provider)))
            for wish in wishes
        ],
        numbers=(3,),
    )
    stage.expect(
        all(each.consent.is_active for each in stage.given), "every school endorses every grant of its own guardians"
    )
    narrator.done(
        f"{stage.report.grants} grants, one for each school of a consent, are endorsed: each school confirmed that "
        "those who signed may decide. No grant tells its school that there is another."
    )


def terms_for(family: Family, wish_text: str) -> tuple[str, str]:
    """Purpose text and reference of one family: so unlike any other that finding it proves where it came from."""
    return f"{wish_text} ({family.reference})", family.reference


async def _show_words(stage: Stage, family: Family, wish: _Wish) -> None:
    async with stage.federation.guardian(family.guardians[0].wallet) as client:
        draft = await client.draft(wish.provider.root, **_terms(family, wish))
    stage.narrator.say(f"What {family.guardians[0].name} reads before signing, for {family.nodes[0].site.name}:")
    for line in draft.notices[0].text.splitlines():
        stage.narrator.say(f"  | {line}")


async def _give_all(stage: Stage, wanted: list[tuple[Family, _Wish]], advance: Callable[[], None]) -> list[Given]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def give(family: Family, wish: _Wish) -> Given:
        async with gate, stage.federation.guardian(family.guardians[0].wallet) as client:
            terms = _terms(family, wish)
            stage.search.add((terms["purpose_text"], terms["reference"]))
            consent: Consent = await client.grant(wish.provider.root, **terms)
        advance()
        return Given(family, wish.provider, consent)

    return list(await asyncio.gather(*(give(family, wish) for family, wish in wanted)))


def _terms(family: Family, wish: _Wish) -> dict[str, Any]:
    purpose_text, reference = terms_for(family, wish.text)
    return {
        "sections": wish.sections,
        "purpose": wish.purpose,
        "purpose_text": purpose_text,
        "until": datetime.now(UTC) + timedelta(days=wish.days),
        "reference": reference,
        "relationship": family.guardians[0].relation,
        "max_uses": wish.max_uses,
        "erase_within_days": wish.erase_within_days,
    }


def _wishes(stage: Stage) -> tuple[_Wish, _Wish, _Wish]:
    return (
        _Wish(
            stage.tutor,
            TUTOR_SECTIONS,
            "tutoring",
            "Twice a week we practise reading and mathematics with your child",
            120,
        ),
        _Wish(
            stage.therapist, (NARROW_SECTION,), "therapy", "We plan speech lessons around missed days", 14, max_uses=1
        ),
        _Wish(stage.summer, SUMMER_SECTIONS, "enrichment", "We choose a group for your child at our summer camp", 90),
    )
