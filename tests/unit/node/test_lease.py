"""The lease: fresh only by ticks that answer this node's own nonces, and only while every counted push is held."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as hs

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import AuthorityError
from permslip_node.lease import Lease


def tick(nonce: bytes, *, pushes: int = 0, size: int = 10) -> pb.Tick:
    return pb.Tick(lease_nonce=nonce, push_count=pushes, ledger_size=size)


def test_no_lease_is_fresh_before_a_tick() -> None:
    lease = Lease(lifetime=5_000)
    lease.ask(now=0)
    assert not lease.is_fresh(now=0, pushes_held=0)
    assert lease.age(0) == float("inf")


def test_age_counts_from_the_sending_of_the_nonce_not_from_the_tick() -> None:
    lease = Lease(lifetime=5_000)
    nonce = lease.ask(now=1_000)
    lease.accept(tick(nonce))  # however late it came
    assert lease.is_fresh(now=5_999, pushes_held=0)
    assert not lease.is_fresh(now=6_000, pushes_held=0)


def test_push_that_is_counted_and_not_held_makes_it_stale_until_it_is_held() -> None:
    lease = Lease(lifetime=5_000)
    lease.accept(tick(lease.ask(now=0), pushes=3))
    assert not lease.is_fresh(now=1, pushes_held=2)
    assert lease.is_fresh(now=1, pushes_held=3)


def test_tick_counts_once_and_for_its_own_nonce_alone() -> None:
    lease, other = Lease(lifetime=5_000), Lease(lifetime=5_000)
    nonce = lease.ask(now=0)
    lease.accept(tick(nonce))
    with pytest.raises(AuthorityError, match="no lease request"):
        lease.accept(tick(nonce))
    with pytest.raises(AuthorityError, match="no lease request"):
        lease.accept(tick(other.ask(now=0)))


def test_nonce_that_is_older_than_the_lease_is_forgotten() -> None:
    lease = Lease(lifetime=5_000)
    nonce = lease.ask(now=0)
    lease.ask(now=5_000)
    with pytest.raises(AuthorityError):
        lease.accept(tick(nonce))


def test_late_tick_for_an_older_nonce_never_makes_the_lease_older() -> None:
    lease = Lease(lifetime=5_000)
    first, second = lease.ask(now=0), lease.ask(now=1_000)
    lease.accept(tick(second))
    lease.accept(tick(first))
    assert lease.is_fresh(now=5_999, pushes_held=0)


@pytest.mark.parametrize("lie", [{"pushes": 1}, {"size": 9}])
def test_counts_and_sizes_never_fall(lie: dict[str, int]) -> None:
    lease = Lease(lifetime=5_000)
    lease.accept(tick(lease.ask(now=0), pushes=2, size=10))
    with pytest.raises(AuthorityError, match="fewer"):
        lease.accept(tick(lease.ask(now=100), **({"pushes": 2} | lie)))
    assert lease.push_count == 2
    assert not lease.is_fresh(now=100, pushes_held=1)


@given(hs.lists(hs.tuples(hs.integers(0, 3_000), hs.booleans()), max_size=30))
def test_lease_is_fresh_only_if_some_answered_nonce_was_sent_less_than_its_lifetime_ago(
    steps: list[tuple[int, bool]],
) -> None:
    lease, now, answered = Lease(lifetime=5_000), 0, []
    for pause, answers in steps:
        now += pause
        nonce = lease.ask(now=now)
        if answers:
            lease.accept(tick(nonce))
            answered.append(now)
        assert lease.is_fresh(now=now, pushes_held=0) == any(now - sent < 5_000 for sent in answered)


def test_what_was_known_before_the_stream_never_becomes_less() -> None:
    lease = Lease(lifetime=5_000, push_count=3, ledger_size=40, root_hash=b"r" * 32)
    for tick in (
        pb.Tick(push_count=2, ledger_size=40, root_hash=b"r" * 32),
        pb.Tick(push_count=3, ledger_size=39, root_hash=b"r" * 32),
        pb.Tick(push_count=3, ledger_size=40, root_hash=b"x" * 32),
    ):
        tick.lease_nonce = lease.ask(now=0)
        with pytest.raises(AuthorityError) as refused:
            lease.accept(tick)
        assert "restored" in refused.value.remedy
    assert not lease.is_fresh(now=1, pushes_held=3)
    lease.accept(pb.Tick(lease_nonce=lease.ask(now=0), push_count=3, ledger_size=40, root_hash=b"r" * 32))
    assert lease.is_fresh(now=1, pushes_held=3)
