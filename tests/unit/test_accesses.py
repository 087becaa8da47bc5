"""Accesses as two ledgers tell them: joined by query, and what one of them says alone is a finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.checkpoints import Checkpoint, sign_checkpoint
from permslip.client.access_joining import NOT_ROUTED, NOT_SERVED, OTHER_ANSWER, OTHER_QUERY, OTHER_SIZE, join
from permslip.client.accesses import Access, AccessReport, SliceReport
from permslip.errors import ProofError, RefusedError, UnavailableError
from permslip.keys import SigningKey
from permslip.merkle import empty_root
from permslip.notes import Ed25519Signer
from permslip.reasons import Reason
from permslip.slice_chains import ChainEntry
from permslip.tlog_proof import TlogProof

PLACE = pb.Slice(node=b"n" * 32, handle=b"h" * 16)
BROKER, SCHOOL = b"b" * 32, b"n" * 32
GRANT, TUTOR = b"g" * 32, b"t" * 32
NOTE = sign_checkpoint(Checkpoint("x", 0, empty_root()), [Ed25519Signer("x", SigningKey.from_seed(bytes(32)))])
NOW = 1_790_000_000_000
UNANSWERED = Reason.UNREACHABLE

Event = dict[str, Any]


def decided(query: str, reason: Reason = Reason.ALLOWED, *, at: int = 0, grant: bytes = GRANT) -> Event:
    return {
        "access_decided": ledger_pb2.AccessDecided(
            query_id=query.encode() * 32,
            requester=pb.Signer(root=TUTOR, key=TUTOR),
            grant_id=grant,
            action=pb.ACTION_READ,
            purpose=pb.PURPOSE_TUTORING,
            reason=reason.wire,
            sections=[ledger_pb2.SectionVerdict(section="transcript.grades", reason=reason.wire)],
            decided_at=NOW + at,
        )
    }


def answered(query: str, reason: Reason = Reason.ALLOWED, *, size: int = 4_113, manifest: bytes = b"") -> Event:
    return {
        "access_answered": ledger_pb2.AccessAnswered(
            query_id=query.encode() * 32, reason=reason.wire, sealed_bytes=size, manifest_sha256=manifest
        )
    }


HIDDEN: Event = {}


def chain(ledger: bytes, events: Sequence[Event]) -> tuple[ChainEntry, ...]:
    return tuple(
        ChainEntry(
            ledger,
            PLACE,
            position=seq,
            seq=seq,
            leaf_hash=bytes(32),
            entry=ledger_pb2.LogEntry(slice=PLACE, slice_seq=seq, recorded_at=NOW, **event) if event else None,
            proof=TlogProof(seq, (), NOTE),
        )
        for seq, event in enumerate(events, start=1)
    )


def report(broker: Sequence[Event], school: Sequence[Event], **changes: Any) -> SliceReport:
    given = SliceReport(SCHOOL, "Lincoln", PLACE.handle, broker=chain(BROKER, broker), school=chain(SCHOOL, school))
    return replace(given, **changes)


def only(found: list[Access]) -> Access:
    (access,) = found
    return access


def test_an_access_is_told_by_both_ledgers_with_all_its_entries() -> None:
    manifest = b"m" * 32
    access = only(
        join(
            report(
                [decided("q"), answered("q", manifest=manifest)],
                [decided("q", at=5), answered("q", manifest=manifest)],
            )
        )
    )

    assert (access.reason, access.refused_by, access.ended, access.released) == (
        Reason.ALLOWED,
        "",
        Reason.ALLOWED,
        4_113,
    )
    assert (access.requester, access.purpose, access.action, access.grant_id) == (TUTOR, "tutoring", "read", GRANT)
    assert access.sections == (("transcript.grades", Reason.ALLOWED),)
    assert [(each.ledger, each.seq) for each in access.entries] == [(BROKER, 1), (BROKER, 2), (SCHOOL, 1), (SCHOOL, 2)]
    assert (access.decided_at, access.difference) == (NOW, "")
    document = access.to_dict()
    assert (document["released"], document["school"]["sealed_bytes"], document["broker"]["entries"]) == (
        4_113,
        4_113,
        [1, 2],
    )


def test_what_the_broker_refused_never_came_to_the_school() -> None:
    access = only(join(report([decided("q", Reason.GRANT_REVOKED)], [])))

    assert (access.reason, access.refused_by, access.released, access.school) == (
        Reason.GRANT_REVOKED,
        "broker",
        None,
        None,
    )
    assert access.difference == ""


def test_what_the_school_refused_says_so_with_the_schools_reasons() -> None:
    school = decided("q", Reason.WITHHELD)
    access = only(join(report([decided("q"), answered("q", Reason.WITHHELD, size=0)], [school])))

    assert (access.reason, access.refused_by) == (Reason.WITHHELD, "school")
    assert access.sections == (("transcript.grades", Reason.WITHHELD),)


def test_a_replay_is_an_access_of_its_own_and_takes_no_answer_from_the_first() -> None:
    first, replay = join(
        report(
            [decided("q"), decided("q", Reason.QUERY_REPLAYED, at=9), answered("q")],
            [decided("q"), answered("q")],
        )
    )

    assert (first.reason, first.ended, first.released) == (Reason.ALLOWED, Reason.ALLOWED, 4_113)
    assert (replay.reason, replay.ended, replay.school) == (Reason.QUERY_REPLAYED, None, None)


def test_accesses_are_in_the_order_of_their_times() -> None:
    found = join(report([decided("b", at=2), decided("a", at=1)], []))

    assert [each.decided_at - NOW for each in found] == [1, 2]


def test_an_access_under_way_is_no_finding() -> None:
    access = only(join(report([decided("q")], [decided("q")])))

    assert (access.ended, access.released, access.difference) == (None, None, "")


def test_a_routed_access_that_nobody_answered_is_no_finding() -> None:
    access = only(join(report([decided("q"), answered("q", UNANSWERED, size=0)], [])))

    assert (access.ended, access.difference) == (UNANSWERED, "")


@pytest.mark.parametrize(
    ("broker", "school", "difference"),
    [
        ([], [decided("q"), answered("q")], NOT_ROUTED),
        ([decided("q"), answered("q")], [], NOT_SERVED),
        ([decided("q")], [decided("q", grant=b"x" * 32)], OTHER_QUERY),
        ([decided("q"), answered("q")], [decided("q", Reason.GRANT_REVOKED)], OTHER_ANSWER),
        (
            [decided("q"), answered("q", manifest=b"1" * 32)],
            [decided("q"), answered("q", manifest=b"2" * 32)],
            OTHER_ANSWER,
        ),
        ([decided("q"), answered("q", size=1)], [decided("q"), answered("q", size=2)], OTHER_SIZE),
        ([decided("q")], [decided("q"), decided("q", Reason.QUERY_REPLAYED)], NOT_ROUTED),
    ],
)
def test_what_one_ledger_says_alone_or_otherwise_is_found(
    broker: list[Event], school: list[Event], difference: str
) -> None:
    found = join(report(broker, school))

    assert [each.difference for each in found if each.difference] == [difference]


@pytest.mark.parametrize(
    ("broker", "school"),
    [
        ([HIDDEN], [decided("q"), answered("q")]),
        ([decided("q"), answered("q")], [HIDDEN, HIDDEN]),
    ],
)
def test_what_hidden_entries_can_account_for_is_no_finding(broker: list[Event], school: list[Event]) -> None:
    assert not [each for each in join(report(broker, school)) if each.difference]


def test_more_than_the_hidden_entries_can_account_for_is_found() -> None:
    found = join(report([HIDDEN], [decided("p"), decided("q")]))

    assert {each.difference for each in found} == {NOT_ROUTED}


def test_what_came_to_the_school_after_the_broker_was_asked_waits_for_the_next_time() -> None:
    given = report([decided("p")], [decided("p"), decided("q")])

    assert len(join(given, settled=1)) == 1
    assert {each.difference for each in join(given, settled=2)} == {"", NOT_ROUTED}


def test_without_the_schools_own_count_nothing_is_said_of_it() -> None:
    given = report([decided("q"), answered("q")], [], error=UnavailableError("it is off line."))

    access = only(join(given))

    assert (access.released, access.difference) == (None, "")
    assert not given.is_complete
    assert "the school's own count could not be had: it is off line." in given.text


def test_a_broker_that_tells_nothing_must_tell_of_what_she_signed_herself() -> None:
    given = report([], [decided("q")], broker_tells=False)

    assert only(join(given)).difference == ""
    assert only(join(given, signed=frozenset({GRANT}))).difference == NOT_ROUTED


def test_a_report_says_in_plain_words_what_is_whole_and_what_was_found() -> None:
    whole = report([decided("q"), answered("q")], [decided("q"), answered("q")])
    silent = report([decided("q")], [], error=RefusedError("Not for you.", code="NOT_ALLOWED"))
    false = report([], [], error=ProofError("an entry was left out."), unwitnessed=ProofError("1 of 3"))
    unlinked = report([], [], broker_tells=False)

    told = AccessReport((), (whole, silent, false, unlinked))

    assert told.text.splitlines() == [
        "Lincoln: the broker's entries 1 to 2, none missing; the school's own 1 to 2, none missing",
        "Lincoln: the broker's entries 1 to 1, none missing; the school's own count could not be had: Not for you.",
        "Lincoln: no entry yet; WHAT CAME AS THE SCHOOL'S OWN WORD CANNOT BE BELIEVED: an entry was left out.",
        "Lincoln: the broker tells nothing: you have no confirmed consent there; no entry of its own",
        f"FOUND: {false.text}",
        "FOUND: Lincoln: not enough witnesses have cosigned the broker's ledger: 1 of 3",
    ]
    assert not told.is_complete
    assert len(told.entries) == 5
    document = told.to_dict()
    assert [each["school_entries"] for each in document["slices"]] == [2, None, None, 0]
    assert AccessReport((), ()).text == "No school is linked, and no consent was given."


def test_a_finding_names_school_time_and_who_asked() -> None:
    access = replace(only(join(report([], [decided("q")]))), requester_name="Tutors")

    assert AccessReport((access,), ()).findings == (f"Lincoln, 2026-09-21T14:13:20Z, Tutors: {NOT_ROUTED}",)
