"""permslip.audit_scope: what an auditor may see is what the operator admitted her to, and not an entry more."""

from __future__ import annotations

from typing import Any

import pytest

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.audit_scope import (
    auditor_reason,
    entries_context,
    is_unlimited,
    make_scope,
    may_read,
    scope_of,
    statements_context,
    visible,
)
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.standing import Standing
from tests.scenarios.world import DAY, NOW, Party, World

BROKER, SCHOOL, OTHER = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
ACCESSES: list[dict[str, Any]] = [
    {"access_decided": ledger_pb2.AccessDecided()},
    {"access_answered": ledger_pb2.AccessAnswered()},
    {"request_refused": ledger_pb2.RequestRefused()},
]
FACTS: list[dict[str, Any]] = [
    {"ledger_opened": ledger_pb2.LedgerOpened()},
    {"statement_recorded": ledger_pb2.StatementRecorded()},
    {"authority_changed": ledger_pb2.AuthorityChanged()},
    {"statements_erased": ledger_pb2.StatementsErased()},
    {"witness_alert": ledger_pb2.WitnessAlert()},
]


def entry(
    event: dict[str, Any], *, about: bytes = b"", ledger: bytes = BROKER, recorded_at: int = NOW
) -> ledger_pb2.LogEntry:
    place = pb.Slice(node=about, handle=bytes(16)) if about else None
    return ledger_pb2.LogEntry(ledger=ledger, recorded_at=recorded_at, slice=place, **event)


def test_every_kind_of_event_is_spoken_of_here() -> None:
    known = {name for each in (*ACCESSES, *FACTS) for name in each}

    assert known == {field.name for field in ledger_pb2.LogEntry.DESCRIPTOR.oneofs_by_name["event"].fields}


@pytest.mark.parametrize("event", [*ACCESSES, *FACTS])
def test_a_scope_without_limits_hides_nothing(event: dict[str, Any]) -> None:
    scope = make_scope()

    assert is_unlimited(scope)
    assert visible(entry(event), scope)
    assert visible(entry(event, about=SCHOOL, recorded_at=0), scope)


@pytest.mark.parametrize("event", [*ACCESSES, *FACTS])
def test_a_scope_of_nodes_shows_their_slices_and_hides_those_of_others(event: dict[str, Any]) -> None:
    scope = make_scope(nodes=(SCHOOL,))

    assert visible(entry(event, about=SCHOOL), scope)
    assert not visible(entry(event, about=OTHER), scope)
    assert not is_unlimited(scope)


@pytest.mark.parametrize("event", ACCESSES)
def test_what_names_no_slice_is_shown_to_a_scope_of_nodes_only_in_such_a_nodes_own_ledger(
    event: dict[str, Any],
) -> None:
    scope = make_scope(nodes=(SCHOOL,))

    assert not visible(entry(event, ledger=BROKER), scope)
    assert visible(entry(event, ledger=SCHOOL), scope)


@pytest.mark.parametrize("event", FACTS)
def test_facts_that_name_no_slice_are_shown_to_every_auditor(event: dict[str, Any]) -> None:
    assert visible(entry(event, recorded_at=0), make_scope(nodes=(SCHOOL,), begins=NOW, ends=NOW + 1))


@pytest.mark.parametrize(("recorded_at", "shown"), [(NOW - 1, False), (NOW, True), (NOW + 9, True), (NOW + 10, False)])
@pytest.mark.parametrize("event", ACCESSES)
def test_accesses_are_shown_from_the_first_moment_until_before_the_last(
    event: dict[str, Any], recorded_at: int, shown: bool
) -> None:
    scope = make_scope(begins=NOW, ends=NOW + 10)

    assert visible(entry(event, about=SCHOOL, recorded_at=recorded_at), scope) is shown
    assert not is_unlimited(scope)


def test_a_scope_may_be_bounded_on_one_side() -> None:
    access = entry(ACCESSES[0])

    assert visible(access, make_scope(begins=NOW))
    assert not visible(access, make_scope(begins=NOW + 1))
    assert visible(access, make_scope(ends=NOW + 1))
    assert not visible(access, make_scope(ends=NOW))


def test_the_brokers_ledger_is_open_to_all_and_a_nodes_to_whose_scope_names_it() -> None:
    assert may_read(BROKER, make_scope(nodes=(SCHOOL,)), broker=BROKER)
    assert may_read(SCHOOL, make_scope(nodes=(SCHOOL,)), broker=BROKER)
    assert may_read(OTHER, make_scope(), broker=BROKER)
    assert not may_read(OTHER, make_scope(nodes=(SCHOOL,)), broker=BROKER)


def test_what_is_sealed_for_one_greeting_or_purpose_is_not_for_another() -> None:
    contexts = {make(hello) for make in (entries_context, statements_context) for hello in (bytes(32), bytes([1]) * 32)}

    assert len(contexts) == 4


# ------------------------------------------------------------------------------------- who is an auditor


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def auditor(world: World) -> Party:
    return world.organization("auditor")


def standing_of(world: World, auditor: Party, **changes: Any) -> Standing:
    admission = world.admission(auditor, pb.PRINCIPAL_KIND_AUDITOR, **changes)
    return Standing(auditor.id).admitted(admission).certified(world.key_cert(auditor))


def test_an_admitted_auditor_with_her_current_key_is_one(world: World, auditor: Party) -> None:
    assert auditor_reason(standing_of(world, auditor), auditor.signer, NOW) == Reason.ALLOWED


def test_her_scope_is_that_of_her_admission(world: World, auditor: Party) -> None:
    scope = make_scope(nodes=(OTHER, SCHOOL, OTHER), begins=NOW, ends=NOW + DAY)

    assert scope_of(standing_of(world, auditor, audit_scope=scope)) == scope
    assert list(scope.nodes) == [SCHOOL, OTHER]
    assert is_unlimited(scope_of(standing_of(world, auditor)))
    assert is_unlimited(scope_of(Standing(auditor.id)))


def test_nobody_is_an_auditor_without_admission(auditor: Party) -> None:
    assert auditor_reason(None, auditor.signer, NOW) == Reason.REQUESTER_UNKNOWN
    assert auditor_reason(Standing(auditor.id), auditor.signer, NOW) == Reason.REQUESTER_UNKNOWN


def test_a_provider_is_no_auditor(world: World) -> None:
    tutor = world.provider("tutor")

    assert auditor_reason(world.facts.standing(tutor.id), tutor.signer, NOW) == Reason.REQUESTER_UNKNOWN


def test_a_suspended_auditor_is_none(world: World, auditor: Party) -> None:
    standing = standing_of(world, auditor).suspended(world.suspension(auditor, created_at=NOW + DAY))

    assert auditor_reason(standing, auditor.signer, Millis(NOW + DAY)) == Reason.REQUESTER_SUSPENDED


def test_an_admission_that_ended_makes_no_auditor(world: World, auditor: Party) -> None:
    standing = standing_of(world, auditor, valid_until=NOW + 1)

    assert auditor_reason(standing, auditor.signer, NOW) == Reason.ALLOWED
    assert auditor_reason(standing, auditor.signer, Millis(NOW + 1)) == Reason.REQUESTER_UNKNOWN


def test_another_key_than_the_certified_one_is_not_hers(world: World, auditor: Party) -> None:
    stolen = auditor.with_online_key(2)

    assert auditor_reason(standing_of(world, auditor), stolen.signer, NOW) == Reason.KEY_NOT_CERTIFIED
