"""permslip.sections: a path covers what is below it, never what is sensitive, and nothing that only looks like it."""

from __future__ import annotations

import pytest

from permslip.errors import MalformedError
from permslip.sections import LEAVES, PATHS, SENSITIVE, TOP, check_paths, condensed, covers, expand, is_narrower


def test_the_tree_is_the_one_of_version_1() -> None:
    assert len(LEAVES) == 29
    assert list(LEAVES) == sorted(LEAVES)
    assert sorted(SENSITIVE) == [
        "identity.demographics",
        "personal.discipline",
        "personal.health",
        "variability.background.adverse_experiences",
        "variability.background.safety",
        "variability.background.socioeconomic_status",
        "variability.social_emotional.identity",
        "variability.social_emotional.stereotype_threat",
    ]


def test_no_leaf_stands_above_another() -> None:
    assert not [(one, other) for one in LEAVES for other in LEAVES if other.startswith(one + ".")]


def test_paths_are_leaves_and_whatever_covers_one() -> None:
    assert PATHS.issuperset(LEAVES)
    assert all(expand([path]) and set(expand([path])) <= set(LEAVES) for path in PATHS)


@pytest.mark.parametrize("path", ["identity", "variability.background.safety.more", "transcript.grade", "", "."])
def test_a_path_that_covers_nothing_is_no_path(path: str) -> None:
    assert path not in PATHS
    assert not any(covers([path], leaf) for leaf in LEAVES)


def test_the_top_paths_cover_everything_that_is_not_sensitive() -> None:
    assert TOP == ("personal", "portfolio", "transcript", "variability", "voice")
    assert expand(TOP) == tuple(leaf for leaf in LEAVES if leaf not in SENSITIVE)


@pytest.mark.parametrize(
    ("path", "leaf", "covered"),
    [
        ("transcript", "transcript.grades", True),
        ("transcript", "transcript.assessments.state", True),
        ("transcript.assessments", "transcript.assessments.district", True),
        ("transcript.grades", "transcript.grades", True),
        ("transcript.grades", "transcript.courses", False),
        ("transcript.assessments.state", "transcript.assessments.district", False),
        # a prefix of letters is no prefix of the path
        ("personal.work", "personal.work_habits", False),
        ("trans", "transcript.grades", False),
        ("transcript.", "transcript.grades", False),
        # what is sensitive is opened by its own name alone
        ("personal", "personal.attendance", True),
        ("personal", "personal.discipline", False),
        ("personal.discipline", "personal.discipline", True),
        ("variability.background", "variability.background.context", True),
        ("variability.background", "variability.background.safety", False),
        ("variability", "variability.social_emotional.stereotype_threat", False),
        ("identity", "identity.demographics", False),
        ("identity.demographics", "identity.demographics", True),
    ],
)
def test_what_a_path_covers(path: str, leaf: str, covered: bool) -> None:
    assert covers([path], leaf) is covered
    assert covers(["voice.goals", path], leaf) is covered
    assert not covers([], leaf)


def test_asking_for_a_path_asks_for_the_leaves_below_it_once_and_in_order() -> None:
    assert expand(["transcript.assessments", "transcript", "transcript.grades"]) == (
        "transcript.assessments.district",
        "transcript.assessments.state",
        "transcript.courses",
        "transcript.credits",
        "transcript.grades",
    )


def test_asking_for_a_path_does_not_ask_for_what_is_sensitive_below_it() -> None:
    assert "personal.health" not in expand(["personal"])
    assert "personal.health" in expand(["personal", "personal.health"])


def test_a_path_that_is_not_in_the_tree_stands_for_itself() -> None:
    assert expand(["voice.songs", "identity", "voice.goals"]) == ("identity", "voice.goals", "voice.songs")
    assert expand([]) == ()


@pytest.mark.parametrize(
    ("parent", "child", "narrower"),
    [
        (["transcript"], ["transcript"], True),
        (["transcript"], ["transcript.grades"], True),
        (["transcript"], ["transcript.assessments"], True),
        (["transcript.grades"], ["transcript"], False),
        (["transcript"], ["transcript.grades", "voice.goals"], False),
        (["transcript", "voice"], ["voice.goals", "transcript.grades"], True),
        (["voice.goals", "voice.interests", "voice.reflections"], ["voice"], True),
        (["voice.goals", "voice.interests"], ["voice"], False),
        (["personal"], ["personal.health"], False),
        (["personal", "personal.health"], ["personal.health"], True),
        (["personal.health"], ["personal.health"], True),
        (["voice"], ["voice.songs"], False),
        (["voice.songs"], ["voice.songs"], False),
        (["identity"], ["identity"], False),
        (["voice"], [], True),
    ],
)
def test_what_is_narrower(parent: list[str], child: list[str], narrower: bool) -> None:
    assert is_narrower(parent, child) is narrower
    assert is_narrower(iter(parent), iter(child)) is narrower


def test_the_first_path_that_is_not_in_the_tree_is_named() -> None:
    check_paths(sorted(PATHS), "grant.sections")

    with pytest.raises(MalformedError) as caught:
        check_paths(["voice", "voice.songs", "songs"], "grant.sections")

    assert caught.value.field == "grant.sections[1]"
    assert "voice.songs" in caught.value.message


def test_leaves_are_condensed_to_the_fewest_paths_that_ask_for_exactly_them() -> None:
    leaves = [*expand(["voice", "transcript.assessments", "personal.plan"]), "personal.discipline"]

    short = condensed(leaves)

    assert short == ("personal.discipline", "personal.plan", "transcript.assessments", "voice")
    assert set(expand(short)) == set(leaves)


@pytest.mark.parametrize("path", sorted(PATHS))
def test_every_path_survives_being_expanded_and_condensed(path: str) -> None:
    assert expand(condensed(expand([path]))) == expand([path])
