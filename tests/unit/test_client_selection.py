"""Which grants answer for a learner: each leaf is asked of exactly one, and nobody is taken for somebody else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as some

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.client.selection import Ask, choose, compact, plan
from permslip.errors import AuthorityError, MalformedError, RefusedError
from permslip.grant_views import GrantStatus, GrantView
from permslip.keys import SigningKey
from permslip.quantities import StatementId
from permslip.sections import LEAVES, SENSITIVE, TOP, expand

PARENT, FATHER = (SigningKey.from_seed(each * 32).public.raw for each in (b"p", b"f"))
TUTOR = b"t" * 32
T = 1_790_000_000_000


def view(
    number: int,
    *sections: str,
    status: GrantStatus = GrantStatus.ACTIVE,
    node: bytes = b"n" * 32,
    created_at: int = T,
    reference: str = "learner-17",
    signers: tuple[bytes, ...] = (PARENT,),
    grantee: bytes = TUTOR,
) -> GrantView:
    grant = pb.Grant(
        granted_by=signers,
        slice=pb.Slice(node=node, handle=b"h" * 16),
        grantee=grantee,
        sections=sorted(sections),
        created_at=created_at,
    )
    identifier = StatementId(number.to_bytes(32, "big"))
    signed = st.Signed(identifier, st.GRANT, grant, pb.Envelope())
    private = pb.GrantPrivate(reference=reference)
    return GrantView(signed, status, "Lincoln", "Tutor", b"c" * 16, T, private)


def asked(*views: GrantView, sections: tuple[str, ...] | None = None) -> dict[int, tuple[str, ...]]:
    asks = plan(views, party=TUTOR, sections=sections)
    assert all(expand(ask.sections) == ask.leaves for ask in asks)
    return {int.from_bytes(ask.view.id, "big"): ask.leaves for ask in asks}


# ------------------------------------------------------------------------------------------------ compact


@given(some.sets(some.sampled_from(LEAVES)))
def test_compacted_paths_expand_to_exactly_the_same_leaves(leaves: set[str]) -> None:
    paths = compact(tuple(sorted(leaves)))

    assert expand(paths) == tuple(sorted(leaves))
    assert list(paths) == sorted(paths)
    assert len(paths) <= len(leaves)


def test_everything_that_is_not_sensitive_is_asked_for_in_few_words() -> None:
    assert compact(expand(TOP)) == TOP


# --------------------------------------------------------------------------------------------------- plan


def test_without_sections_everything_not_sensitive_is_asked_and_the_sensitive_that_is_granted() -> None:
    leaves = asked(view(1, "transcript", "personal.health"))[1]

    assert set(leaves) == {*expand(TOP), "personal.health"}


def test_a_leaf_is_asked_of_the_newest_live_grant_that_covers_it() -> None:
    old, new = view(1, "transcript", "voice"), view(2, "transcript.grades", created_at=T + 1)

    assert asked(old, new, sections=("transcript.grades", "voice.goals")) == {
        2: ("transcript.grades",),
        1: ("voice.goals",),
    }


def test_what_no_grant_covers_is_asked_once_so_that_it_is_said_to_be_denied() -> None:
    assert asked(view(1, "transcript"), view(2, "voice", created_at=T + 1), sections=("personal.plan",)) == {
        2: ("personal.plan",)
    }


@pytest.mark.parametrize("dead", [each for each in GrantStatus if not each.is_live])
def test_a_dead_grant_is_used_only_where_no_other_is_left(dead: GrantStatus) -> None:
    live, gone = view(1, "transcript"), view(2, "transcript", status=dead, created_at=T + 1)

    assert set(asked(live, gone, sections=("transcript.grades",))) == {1}
    assert set(asked(gone, sections=("transcript.grades",))) == {2}


_VIEWS = some.lists(
    some.builds(
        lambda number, sections, status, created_at, node: view(
            number, *sections, status=status, created_at=T + created_at, node=node
        ),
        some.integers(1, 10**6),
        some.sets(some.sampled_from([*TOP, *LEAVES]), min_size=1, max_size=4),
        some.sampled_from(list(GrantStatus)),
        some.integers(0, 9),
        some.sampled_from([b"n" * 32, b"m" * 32]),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda each: each.id,
)


@given(_VIEWS, some.sets(some.sampled_from([*TOP, *LEAVES]), min_size=1, max_size=5))
def test_every_leaf_is_asked_of_each_slice_exactly_once(views: list[GrantView], sections: set[str]) -> None:
    asks = plan(views, party=TUTOR, sections=sections)

    wanted = expand(sections)
    for node in {each.node for each in views}:
        leaves = [leaf for ask in asks if ask.view.node == node for leaf in ask.leaves]
        assert sorted(leaves) == sorted(wanted)


@given(_VIEWS)
def test_a_sensitive_leaf_that_no_grant_names_is_not_asked_for_unasked(views: list[GrantView]) -> None:
    for ask in plan(views, party=TUTOR, sections=None):
        named = {path for each in views if each.node == ask.view.node for path in each.sections}
        assert SENSITIVE & set(ask.leaves) <= named


def test_one_section_may_be_given_as_text() -> None:
    (ask,) = plan([view(1, "transcript")], party=TUTOR, sections="transcript.grades")

    assert ask.leaves == ("transcript.grades",)


def test_a_grant_to_somebody_else_is_an_error() -> None:
    with pytest.raises(AuthorityError, match="given to somebody else"):
        plan([view(1, "transcript", grantee=b"x" * 32)], party=TUTOR, sections=None)


def test_the_next_page_belongs_to_the_first_query() -> None:
    ask = Ask(view(1, "transcript"), (), ("transcript.grades",), ("transcript.grades",), retry_of=b"r" * 32)

    following = ask.next_page(b"token", b"q" * 32)

    assert (following.page, following.continues, following.retry_of) == (b"token", b"q" * 32, b"")


# ------------------------------------------------------------------------------------------------- choose


def test_consents_of_one_person_with_one_reference_are_one_learner() -> None:
    views = [view(1, "transcript"), view(2, "voice", node=b"m" * 32), view(3, "voice", reference="learner-18")]

    assert [each.id[-1] for each in choose(views, "learner-17")] == [1, 2]


def test_consents_of_different_persons_with_one_reference_are_not() -> None:
    with pytest.raises(MalformedError, match="different persons"):
        choose([view(1, "transcript"), view(2, "voice", signers=(FATHER,))], "learner-17")


def test_dead_consents_of_another_person_do_not_hide_the_living_one_about_the_same_slice() -> None:
    gone = [view(1, "transcript", status=GrantStatus.AUTHORITY_ENDED), view(2, "voice", signers=(FATHER,))]

    assert [each.id[-1] for each in choose(gone, "learner-17")] == [2]
    with pytest.raises(MalformedError, match="different persons"):
        choose([gone[0], view(2, "voice", signers=(FATHER,), node=b"m" * 32)], "learner-17")


def test_consents_that_one_person_signed_alone_and_with_another_are_one_learner() -> None:
    views = [view(1, "transcript"), view(2, "voice", signers=(PARENT, FATHER))]

    assert len(choose(views, "learner-17")) == 2


@pytest.mark.parametrize("selector", ["", "learner-99", b"\x00" * 16, [], "ff" * 32])
def test_what_nobody_knows_is_refused(selector: Any) -> None:
    with pytest.raises(RefusedError) as caught:
        choose([view(1, "transcript", reference="")], selector)

    assert caught.value.code == "GRANT_UNKNOWN"


def test_an_id_wins_over_a_reference_that_looks_like_one() -> None:
    text = (1).to_bytes(32, "big").hex()

    assert [each.id[-1] for each in choose([view(1, "voice"), view(2, "voice", reference=text)], text)] == [1]
