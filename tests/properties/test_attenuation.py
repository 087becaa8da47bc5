"""Attenuation, one property for each dimension: narrower is accepted, wider is refused by that dimension's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings, strategies as s

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import AttenuationError
from permslip.grants import Terms, narrow
from permslip.sections import LEAVES, PATHS, SENSITIVE, covers, expand, is_narrower

ACTIONS = [pb.ACTION_READ, pb.ACTION_APPEND, pb.ACTION_WATCH]
PARTIES = [bytes([number]) * 32 for number in range(6)]
FIRST, LAST = date(2020, 1, 1), date(2030, 12, 31)


def day(when: date) -> str:
    return when.isoformat()


@s.composite
def parents(draw: s.DrawFn) -> Terms:
    """Terms that may be passed on, with room for something wider in every dimension."""
    start = draw(s.integers(10, 10**6))
    first, length = draw(s.dates(FIRST, LAST)), draw(s.integers(0, 1000))
    party, *others = draw(s.permutations(PARTIES))
    return Terms(
        actions=frozenset(draw(s.lists(s.sampled_from(ACTIONS), min_size=1, max_size=2, unique=True))),
        sections=tuple(sorted(draw(s.sets(s.sampled_from(sorted(PATHS - {"transcript"})), min_size=1, max_size=4)))),
        not_before=start,
        expires_at=start + draw(s.integers(2, 10**6)),
        records_from=day(first),
        records_until=day(first + timedelta(days=length)),
        max_uses=draw(s.integers(1, 1000)),
        depth=draw(s.integers(1, 4)),
        onward=frozenset(others[: draw(s.integers(1, 4))]),
        party=party,
    )


@s.composite
def pairs(draw: s.DrawFn) -> tuple[Terms, Terms]:
    """A parent and a child that is within it in every dimension."""
    parent = draw(parents())
    start = draw(s.integers(parent.not_before, parent.expires_at - 1))
    first, last = date.fromisoformat(parent.records_from), date.fromisoformat(parent.records_until)
    child_first = draw(s.dates(first, last))
    covered = [leaf for leaf in LEAVES if covers(parent.sections, leaf)]
    onward = sorted(parent.onward)
    child = Terms(
        actions=frozenset(draw(s.lists(s.sampled_from(sorted(parent.actions)), min_size=1, unique=True))),
        sections=tuple(sorted(draw(s.sets(s.sampled_from([*covered, *parent.sections]), min_size=1)))),
        not_before=start,
        expires_at=draw(s.integers(start + 1, parent.expires_at)),
        records_from=day(child_first),
        records_until=day(draw(s.dates(child_first, last))),
        max_uses=draw(s.integers(1, parent.max_uses)),
        depth=draw(s.integers(0, parent.depth - 1)),
        onward=frozenset(draw(s.lists(s.sampled_from(onward), unique=True))),
        party=draw(s.sampled_from(onward)),
    )
    return parent, child


@settings(max_examples=200)
@given(pair=pairs())
def test_whatever_is_within_its_parent_in_every_dimension_is_accepted(pair: tuple[Terms, Terms]) -> None:
    parent, child = pair

    assert narrow(parent, child) is child


Widen = Callable[[Terms, Terms, Any], dict[str, Any]]


def _actions(parent: Terms, child: Terms, draw: Any) -> dict[str, Any]:
    return {"actions": child.actions | {draw(s.sampled_from(sorted(set(ACTIONS) - parent.actions)))}}


def _sections(parent: Terms, child: Terms, draw: Any) -> dict[str, Any]:
    outside = sorted(path for path in PATHS if not is_narrower(parent.sections, [path]))
    return {"sections": tuple(sorted({*child.sections, draw(s.sampled_from(outside))}))}


def _earlier(parent: Terms, child: Terms, draw: Any) -> dict[str, Any]:
    return {"not_before": draw(s.integers(0, parent.not_before - 1))}


def _later(parent: Terms, child: Terms, draw: Any) -> dict[str, Any]:
    return {"expires_at": draw(s.integers(parent.expires_at + 1, parent.expires_at + 10**9))}


def _older_records(parent: Terms, child: Terms, draw: Any) -> dict[str, Any]:
    before = date.fromisoformat(parent.records_from) - timedelta(days=draw(s.integers(1, 5000)))
    return {"records_from": draw(s.sampled_from(["", day(before)]))}


def _newer_records(parent: Terms, child: Terms, draw: Any) -> dict[str, Any]:
    after = date.fromisoformat(parent.records_until) + timedelta(days=draw(s.integers(1, 5000)))
    return {"records_until": draw(s.sampled_from(["", day(after)]))}


def _uses(parent: Terms, child: Terms, draw: Any) -> dict[str, Any]:
    return {"max_uses": draw(s.one_of(s.just(0), s.integers(parent.max_uses + 1, 2**32 - 1)))}


def _depth(parent: Terms, child: Terms, draw: Any) -> dict[str, Any]:
    return {"depth": draw(s.integers(parent.depth, 4))}


def _onward(parent: Terms, child: Terms, draw: Any) -> dict[str, Any]:
    return {"onward": child.onward | {draw(s.sampled_from([p for p in PARTIES if p not in parent.onward]))}}


def _party(parent: Terms, child: Terms, draw: Any) -> dict[str, Any]:
    return {"party": draw(s.sampled_from([p for p in PARTIES if p not in parent.onward]))}


@pytest.mark.parametrize(
    ("dimension", "widen"),
    [
        ("actions", _actions),
        ("sections", _sections),
        ("time", _earlier),
        ("time", _later),
        ("dates", _older_records),
        ("dates", _newer_records),
        ("uses", _uses),
        ("depth", _depth),
        ("parties", _onward),
        ("parties", _party),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
@settings(max_examples=60)
@given(pair=pairs(), data=s.data())
def test_whatever_is_wider_in_one_dimension_is_refused_by_its_name(
    dimension: str, widen: Widen, pair: tuple[Terms, Terms], data: s.DataObject
) -> None:
    parent, child = pair

    with pytest.raises(AttenuationError) as caught:
        narrow(parent, replace(child, **widen(parent, child, data.draw)))

    assert caught.value.dimension == dimension


@settings(max_examples=100)
@given(first=pairs(), data=s.data())
def test_what_is_passed_on_twice_is_within_what_was_first_granted(
    first: tuple[Terms, Terms], data: s.DataObject
) -> None:
    grandparent, parent = first
    if not parent.depth or not parent.onward:
        return
    child = replace(
        parent,
        depth=data.draw(s.integers(0, parent.depth - 1)),
        party=data.draw(s.sampled_from(sorted(parent.onward))),
        sections=tuple(data.draw(s.lists(s.sampled_from(parent.sections), min_size=1, unique=True))),
    )

    narrow(parent, child)
    narrow(grandparent, child)


# ---------------------------------------------------------------------------------------------- sections

paths = s.lists(s.one_of(s.sampled_from(sorted(PATHS)), s.from_regex(r"[a-z_]{1,9}(\.[a-z_]{1,9})?\Z")), max_size=6)


@given(granted=paths, asked=paths)
def test_narrower_means_that_nothing_more_is_covered(granted: list[str], asked: list[str]) -> None:
    if is_narrower(granted, asked):
        assert all(covers(granted, leaf) for leaf in LEAVES if covers(asked, leaf))
        assert set(asked) <= PATHS
    elif set(asked) <= PATHS:
        assert any(covers(asked, leaf) and not covers(granted, leaf) for leaf in LEAVES)


@given(granted=paths)
def test_what_is_sensitive_is_covered_by_its_own_name_alone(granted: list[str]) -> None:
    for leaf in SENSITIVE:
        assert covers(granted, leaf) == (leaf in granted)


@given(granted=paths, more=paths)
def test_granting_more_never_takes_away(granted: list[str], more: list[str]) -> None:
    assert {leaf for leaf in LEAVES if covers(granted, leaf)} <= {
        leaf for leaf in LEAVES if covers(granted + more, leaf)
    }


@given(asked=paths)
def test_what_is_asked_for_is_leaves_or_unknown_once_and_ascending(asked: list[str]) -> None:
    leaves = expand(asked)

    assert list(leaves) == sorted(set(leaves))
    assert all(leaf in LEAVES or leaf in asked for leaf in leaves)
    assert expand(leaves) == leaves
