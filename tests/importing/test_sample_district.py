"""The generated district: the same for a seed, readable by the real importers, with families of every kind."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from permslip_node.importing import MemorySink, import_edfi, import_families, import_lms
from permslip_node.sample_district import District, generate_district


@pytest.fixture
def district(tmp_path: Path) -> District:
    return generate_district(tmp_path, learners=36, seed=1)


def _digest(folder: Path) -> str:
    whole = sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    digests = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(number)
        generate_district(folder, learners=12, seed=seed)
        digests.append(_digest(folder))
    assert digests[0] == digests[1] != digests[2]


def test_the_bytes_are_the_same_on_every_machine(tmp_path: Path) -> None:
    generate_district(tmp_path, learners=12, seed=1)
    assert _digest(tmp_path) == "b1a330138148145f4e9b2776cd33fcec671cd0bbbaa3b5d169384159b8b891f2"


def test_the_importers_read_it_without_a_reject(district: District, sink: MemorySink) -> None:
    schools = import_edfi([district.edfi], sink)
    platform = import_lms(district.lms, MemorySink())
    assert (schools.rejected, platform.rejected) == (0, 0)
    assert (schools.learners, schools.guardian_links) == (36, district.guardian_links)
    assert platform.learners == len(district.lms_learners) == 12
    assert set(schools.records) >= {
        "identity.demographics",
        "personal.attendance",
        "personal.discipline",
        "personal.services",
        "transcript.assessments.state",
        "transcript.courses",
        "transcript.credits",
        "transcript.grades",
    }


def test_each_school_has_a_third_of_the_learners(district: District) -> None:
    for school in district.schools:
        assert import_edfi([district.edfi], MemorySink(), only_school=school.identifier).learners == 12


def test_every_school_has_every_kind_of_family(district: District) -> None:
    for school in district.schools:
        sink = MemorySink()
        import_edfi([district.edfi], sink, only_school=school.identifier)
        links = sink.guardians.values()
        families = {learner: [link for link in links if link.native_learner_id == learner] for learner in sink.names}
        assert {len(family) for family in families.values()} == {1, 2, 3}
        assert any(link.relation == "Father, step" for link in links)
        assert any(link.contact_restrictions and link.lives_with is False for link in links)


def test_some_guardian_has_children_at_two_schools(district: District, sink: MemorySink) -> None:
    import_edfi([district.edfi], sink)
    guardians = [link.native_guardian_id for link in sink.guardians.values()]
    assert len(set(guardians)) < len(guardians)


def test_the_platform_can_be_told_its_learners_guardians(district: District, sink: MemorySink) -> None:
    import_lms(district.lms, sink)
    report = import_families([district.edfi], sink, learners=district.lms_learners)
    assert report.learners == len(district.lms_learners)
    assert {link.native_learner_id for link in sink.guardians.values()} == set(district.lms_learners)
