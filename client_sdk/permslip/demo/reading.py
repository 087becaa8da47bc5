"""Acts of the providers: profiles are assembled, and one of them while a node is down."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from permslip.coverage import Held
from permslip.demo.granting import NARROW_SECTION, SUMMER_SECTIONS, TUTOR_SECTIONS
from permslip.demo.report import Partial
from permslip.demo.stage import Given, Stage
from permslip.profile import Profile

__all__ = ["assemble", "lose_a_node"]

_SHOWN_ROWS: Final = 12


async def assemble(stage: Stage, keep: Path | None) -> None:
    """Every provider assembles the profiles that parents granted it."""
    narrator, report = stage.narrator, stage.report
    narrator.act("Profiles are assembled")
    narrator.say(
        "A provider's SDK asks the nodes through the broker, opens the sealed slices, checks every signature and puts "
        "the slices side by side. Nothing is merged, averaged or ranked; every gap says why it is one."
    )
    profiles: list[Profile] = []
    with narrator.progress("assembling", len(stage.given)) as advance:
        for provider, sections in (
            (stage.tutor, TUTOR_SECTIONS),
            (stage.therapist, (NARROW_SECTION,)),
            (stage.summer, SUMMER_SECTIONS),
        ):
            references = [each.family.reference for each in stage.given_to(provider)]
            async with stage.federation.client(provider) as client:
                async for profile in client.profiles(references, sections=sections):
                    profiles.append(profile)
                    advance()
    report.profiles = len(profiles)
    report.profile_sections = sum(len({entry.section for entry in profile.entries}) for profile in profiles)
    records = sum(len(profile.entries) for profile in profiles)
    stage.expect(report.profiles == len(stage.given), "every consent gives a profile")
    stage.expect(all(profile.is_complete for profile in profiles), "every profile that was granted is whole")
    narrator.done(
        f"{report.profiles} profiles with {records:,} records in {report.profile_sections} sections, all whole"
    )
    await _show_one(stage, keep)


async def lose_a_node(stage: Stage) -> None:
    """The platform stops; the profile says what is missing; it comes back."""
    narrator = stage.narrator
    given = _known_twice(stage)
    node = next(each for each in given.family.nodes if each.site.is_platform)
    narrator.act(f"{node.site.name} is down")
    if node.process is not None:
        node.process.end()
    async with stage.federation.client(stage.tutor) as client:
        profile = await client.profile(given.family.reference, sections=TUTOR_SECTIONS)
        missing = [each for each in profile.coverage if each.state is Held.UNREACHABLE]
        stage.report.partial = Partial(node.site.name, sorted({each.section for each in missing}))
        stage.expect(bool(missing), "the profile says what is missing")
        stage.expect({each.node for each in missing} == {node.root_key}, "only the node that is down is missing")
        stage.expect(bool(profile.entries), "the other node's records came")
        narrator.say(
            f"The tutor asks for {given.family.reference} again. {len(profile.entries)} records came from the school. "
            f"Of the platform the profile does not say that it holds nothing, but: {missing[0].reason.meaning}"
        )
        narrator.table(
            ("section", "at", "state"), [(each.section, each.node_name, each.state.value) for each in missing]
        )
        stage.federation.start_node(node)
        whole = await client.profile(given.family.reference, sections=TUTOR_SECTIONS)
    stage.expect(whole.is_complete, "the profile is whole again once the node is back")
    narrator.done("the node is back, it has caught up, and the profile is whole again")


async def _show_one(stage: Stage, keep: Path | None) -> None:
    narrator, given = stage.narrator, _known_twice(stage)
    async with stage.federation.client(stage.tutor) as client:
        profile = await client.profile(given.family.reference)
    narrator.say(
        f"One of them, {given.family.reference}, where the tutor asked for everything that is not sensitive. "
        "Sections that were not granted say so, whether or not anything is held:"
    )
    shown = [each for each in profile.coverage if each.state is not Held.DENIED]
    denied = [each for each in profile.coverage if each.state is Held.DENIED]
    narrator.table(
        ("section", "at", "state", "records"),
        [(each.section, each.node_name, each.state.value, each.returned or "") for each in shown[:_SHOWN_ROWS]],
        numbers=(3,),
    )
    narrator.say(f"… and {len(denied)} sections denied: {denied[0].reason.meaning if denied else ''}")
    stage.expect(bool(denied), "what was not granted is denied by name")
    jagged = profile.jagged(sections=("transcript.assessments", "personal.assessments"))
    narrator.say(
        f"Its jagged profile has {len(jagged.rows)} dimensions, each on its own scale. There is no mean of them."
    )
    if keep is not None:
        drawing = keep / "jagged.svg"
        drawing.write_text(jagged.to_svg(), encoding="utf-8")
        (keep / "profile.json").write_text(profile.to_json(indent=1), encoding="utf-8")
        narrator.done(f"written: {drawing} and {keep / 'profile.json'}")


def _known_twice(stage: Stage) -> Given:
    """The first consent for the tutor about a learner whom a school and the platform know."""
    return next(each for each in stage.given_to(stage.tutor) if len(each.family.nodes) > 1)
