"""permslip.decision: the first reason that holds is the answer, and each section has its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.decision import MAX_CLOCK_SKEW, MAX_QUERY_LIFETIME, Decision, Facts, decide, end_of_lease
from permslip.facts import gather
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.sections import expand
from permslip.statements import Signed
from tests.scenarios.world import DAY, NOW, Party, World, seed


class Federation(World):
    """An endorsed grant on ``transcript`` for the tutor, who may pass it on to the club, and the club to the camp."""

    def __init__(self, **terms: Any) -> None:
        super().__init__()
        self.school = self.node("school")
        self.tutor, self.club, self.camp, self.rival = (
            self.provider(name) for name in ("tutor", "club", "camp", "rival")
        )
        self.mother = self.person("mother")
        onward = sorted([self.club.id, self.camp.id])
        terms = {"delegation_depth": 2, "onward_parties": onward, **terms}
        if not terms["delegation_depth"]:
            del terms["delegation_depth"], terms["onward_parties"]
        self.consent = self.granted(self.mother, self.school, self.tutor, **terms)

    def facts_for(self, query: Signed[pb.Query], **changes: Any) -> Facts:
        return replace(gather(self.facts, query), **changes)

    def reason(self, query: Signed[pb.Query], **changes: Any) -> Reason:
        return decide(self.facts_for(query, **changes), query, now=self.now).reason


@pytest.fixture
def fed() -> Federation:
    return Federation()


# ---------------------------------------------------------------------------------------------- allowed


def test_the_grantee_gets_what_was_granted(fed: Federation) -> None:
    decision = fed.ask(fed.query(fed.tutor, fed.consent, ["transcript.grades"]))

    assert decision == Decision(Reason.ALLOWED, (("transcript.grades", Reason.ALLOWED),))
    assert decision.granted == ("transcript.grades",)


def test_each_section_that_was_asked_for_has_its_own_reason(fed: Federation) -> None:
    consent = fed.granted(fed.mother, fed.school, fed.tutor, sections=["personal", "transcript.grades"])
    asked = ["personal.attendance", "personal.health", "transcript", "voice.songs"]

    decision = fed.ask(
        fed.query(fed.tutor, consent, asked), withheld=frozenset({"personal.attendance", "transcript.courses"})
    )

    assert decision.reason == Reason.ALLOWED
    assert dict(decision.sections) == {
        "personal.attendance": Reason.WITHHELD,
        "personal.health": Reason.SECTION_SENSITIVE,
        "transcript.assessments.district": Reason.SECTION_NOT_GRANTED,
        "transcript.assessments.state": Reason.SECTION_NOT_GRANTED,
        "transcript.courses": Reason.SECTION_NOT_GRANTED,
        "transcript.credits": Reason.SECTION_NOT_GRANTED,
        "transcript.grades": Reason.ALLOWED,
        "voice.songs": Reason.SECTION_UNKNOWN,
    }
    assert decision.granted == ("transcript.grades",)


@pytest.mark.parametrize(
    ("asked", "withheld", "reason"),
    [
        ("voice.goals", (), Reason.SECTION_NOT_GRANTED),
        ("voice.songs", (), Reason.SECTION_UNKNOWN),
        ("identity", (), Reason.SECTION_UNKNOWN),
        ("identity.demographics", (), Reason.SECTION_NOT_GRANTED),
        ("transcript.grades", ("transcript.grades",), Reason.WITHHELD),
    ],
)
def test_without_an_allowed_section_the_first_sections_reason_is_the_slices(
    asked: str, withheld: tuple[str, ...], reason: Reason, fed: Federation
) -> None:
    decision = fed.ask(fed.query(fed.tutor, fed.consent, [asked]), withheld=frozenset(withheld))

    assert decision == Decision(reason, ((asked, reason),))


def test_a_section_below_a_sensitive_one_is_not_taken_for_sensitive(fed: Federation) -> None:
    consent = fed.granted(fed.mother, fed.school, fed.tutor, sections=["variability.background.context"])

    decision = fed.ask(fed.query(fed.tutor, consent, ["variability.background.safety", "variability.cognition"]))

    assert dict(decision.sections) == {
        "variability.background.safety": Reason.SECTION_NOT_GRANTED,
        "variability.cognition": Reason.SECTION_NOT_GRANTED,
    }


def test_a_refusal_of_the_slice_is_said_for_every_section(fed: Federation) -> None:
    decision = fed.ask(fed.query(fed.rival, fed.consent, ["transcript"]))

    assert decision.reason == Reason.NOT_GRANTEE
    assert decision.sections == tuple((path, Reason.NOT_GRANTEE) for path in expand(["transcript"]))
    assert decision.granted == ()


# ---------------------------------------------------------------------------------------------- dates of records


@pytest.mark.parametrize(
    ("granted", "asked", "released", "bounded"),
    [
        (("", ""), ("", ""), ("", ""), False),
        (("", ""), ("2026-01-01", "2026-02-01"), ("2026-01-01", "2026-02-01"), False),
        (("2026-01-01", "2026-06-30"), ("", ""), ("2026-01-01", "2026-06-30"), True),
        (("2026-01-01", ""), ("", "2026-02-01"), ("2026-01-01", "2026-02-01"), True),
        (("", "2026-06-30"), ("2026-02-01", ""), ("2026-02-01", "2026-06-30"), True),
        (("2026-01-01", "2026-06-30"), ("2026-02-01", "2026-03-01"), ("2026-02-01", "2026-03-01"), False),
        (("2026-01-01", "2026-06-30"), ("2026-01-01", "2026-06-30"), ("2026-01-01", "2026-06-30"), False),
        (("2026-01-01", "2026-06-30"), ("2025-01-01", "2027-01-01"), ("2026-01-01", "2026-06-30"), True),
        (("2026-01-01", "2026-06-30"), ("2026-06-30", "2026-06-30"), ("2026-06-30", "2026-06-30"), False),
    ],
)
def test_the_days_released_are_those_both_granted_and_asked_for(
    granted: tuple[str, str], asked: tuple[str, str], released: tuple[str, str], bounded: bool
) -> None:
    fed = Federation(records_from=granted[0], records_until=granted[1])

    decision = fed.ask(fed.query(fed.tutor, fed.consent, records_from=asked[0], records_until=asked[1]))

    assert decision.reason == Reason.ALLOWED
    assert (decision.records_from, decision.records_until) == released
    assert decision.bounded is bounded


@pytest.mark.parametrize(
    ("granted", "asked"),
    [
        (("2026-01-01", "2026-06-30"), ("2026-07-01", "")),
        (("2026-01-01", "2026-06-30"), ("", "2025-12-31")),
        (("2026-01-01", ""), ("", "2025-12-31")),
        (("", "2026-06-30"), ("2026-07-01", "")),
        (("", ""), ("2026-07-02", "2026-07-01")),
    ],
)
def test_days_that_do_not_meet_are_refused(granted: tuple[str, str], asked: tuple[str, str]) -> None:
    fed = Federation(records_from=granted[0], records_until=granted[1])

    decision = fed.ask(fed.query(fed.tutor, fed.consent, records_from=asked[0], records_until=asked[1]))

    assert decision.reason == Reason.DATES_NOT_GRANTED


# ---------------------------------------------------------------------------------------------- the decider, the query


@pytest.mark.parametrize("unfit", [Reason.NO_LEASE, Reason.CLOCK])
def test_a_decider_that_is_unfit_answers_nobody(unfit: Reason, fed: Federation) -> None:
    query = fed.query(fed.tutor, fed.consent)

    assert fed.reason(query, unfit=unfit) == unfit
    # whatever else is wrong
    assert fed.reason(fed.query(fed.rival, fed.consent), unfit=unfit, seen=True) == unfit


def test_a_query_may_be_dated_a_minute_ahead_and_no_more(fed: Federation) -> None:
    at = NOW + MAX_CLOCK_SKEW
    ahead: dict[str, Any] = {"created_at": at, "expires_at": at + 1000}
    assert fed.reason(fed.query(fed.tutor, fed.consent, **ahead)) == Reason.ALLOWED

    ahead = {"created_at": at + 1, "expires_at": at + 1000}
    assert fed.reason(fed.query(fed.tutor, fed.consent, **ahead)) == Reason.QUERY_FROM_FUTURE


def test_a_query_holds_until_before_its_end(fed: Federation) -> None:
    assert fed.reason(fed.query(fed.tutor, fed.consent, created_at=NOW - 5, expires_at=NOW + 1)) == Reason.ALLOWED
    assert fed.reason(fed.query(fed.tutor, fed.consent, created_at=NOW - 5, expires_at=NOW)) == Reason.QUERY_EXPIRED


def test_a_query_lives_two_minutes_at_most(fed: Federation) -> None:
    longest: dict[str, Any] = {"created_at": NOW, "expires_at": NOW + MAX_QUERY_LIFETIME}
    assert fed.reason(fed.query(fed.tutor, fed.consent, **longest)) == Reason.ALLOWED

    longer: dict[str, Any] = {"created_at": NOW, "expires_at": NOW + MAX_QUERY_LIFETIME + 1}
    assert fed.reason(fed.query(fed.tutor, fed.consent, **longer)) == Reason.QUERY_EXPIRED


def test_a_query_counts_once(fed: Federation) -> None:
    assert fed.reason(fed.query(fed.tutor, fed.consent), seen=True) == Reason.QUERY_REPLAYED


# ---------------------------------------------------------------------------------------------- who asks


def test_an_organization_that_nobody_admitted_is_unknown(fed: Federation) -> None:
    assert fed.reason(fed.query(fed.organization("nobody"), fed.consent)) == Reason.REQUESTER_UNKNOWN


def test_an_organization_admitted_as_something_else_is_unknown(fed: Federation) -> None:
    assert fed.reason(fed.query(fed.school, fed.consent)) == Reason.REQUESTER_UNKNOWN


def test_an_organization_whose_admission_ended_is_unknown(fed: Federation) -> None:
    fed.record(fed.admission(fed.tutor, pb.PRINCIPAL_KIND_PROVIDER, valid_until=NOW + DAY))
    query = fed.query(fed.tutor, fed.consent, created_at=NOW + DAY - 10, expires_at=NOW + DAY + 10)
    facts = fed.facts_for(query)

    assert decide(facts, query, now=Millis(NOW + DAY - 1)).reason == Reason.ALLOWED
    assert decide(facts, query, now=Millis(NOW + DAY)).reason == Reason.REQUESTER_UNKNOWN


def test_a_suspended_requester_is_refused(fed: Federation) -> None:
    fed.record(fed.suspension(fed.tutor))

    assert fed.reason(fed.query(fed.tutor, fed.consent)) == Reason.REQUESTER_SUSPENDED


def test_a_key_that_was_suspended_without_ever_being_admitted_is_refused(fed: Federation) -> None:
    father = fed.person("father")
    consent = fed.granted(fed.mother, fed.school, father, purpose=pb.PURPOSE_FAMILY)
    fed.record(fed.suspension(father))

    assert fed.reason(fed.query(father, consent)) == Reason.REQUESTER_SUSPENDED


def test_a_key_that_is_not_the_current_one_is_refused(fed: Federation) -> None:
    fed.record(fed.key_cert(fed.tutor.with_online_key(2), 2))

    assert fed.reason(fed.query(fed.tutor, fed.consent)) == Reason.KEY_NOT_CERTIFIED
    assert fed.reason(fed.query(fed.tutor.with_online_key(2), fed.consent)) == Reason.ALLOWED


def test_a_strangers_key_under_the_grantees_root_is_refused(fed: Federation) -> None:
    assert fed.reason(fed.query(fed.tutor.signing_as(fed.rival), fed.consent)) == Reason.KEY_NOT_CERTIFIED


def test_an_admitted_organization_does_not_ask_with_its_root(fed: Federation) -> None:
    with_root = Party("tutor", fed.tutor.root, fed.tutor.root, fed.tutor.sealing)

    assert fed.reason(fed.query(with_root, fed.consent)) == Reason.KEY_NOT_CERTIFIED


def test_an_expired_key_is_refused(fed: Federation) -> None:
    fed.record(fed.key_cert(fed.tutor.with_online_key(2), 2, valid_until=NOW + 1000))
    fed.pass_time(1000)

    assert fed.reason(fed.query(fed.tutor.with_online_key(2), fed.consent)) == Reason.KEY_EXPIRED


def test_a_grant_that_is_unknown_is_said_to_be(fed: Federation) -> None:
    unknown = fed.grant(fed.mother, fed.school, fed.tutor)

    assert fed.reason(fed.query(fed.tutor, unknown)) == Reason.GRANT_UNKNOWN


def test_somebody_else_learns_nothing_but_that_the_grant_is_not_hers(fed: Federation) -> None:
    delegation = fed.record(fed.delegation(fed.tutor, fed.consent, fed.club))
    unknown = fed.delegation(fed.tutor, fed.consent, fed.camp)
    deep = [delegation, unknown, unknown]
    fed.record(fed.revocation(fed.mother, fed.consent, fed.school))

    for chain in ([], [delegation], [unknown], deep):
        for changes in ({}, {"endorsement": None}, {"uses": (9,) * (1 + len(chain))}):
            query = fed.query(fed.rival, fed.consent, chain=chain)
            assert fed.reason(query, **changes) == Reason.NOT_GRANTEE


def test_a_person_reads_only_as_family_or_as_herself(fed: Federation) -> None:
    father = fed.person("father")
    for purpose in (pb.PURPOSE_FAMILY, pb.PURPOSE_SELF):
        consent = fed.granted(fed.mother, fed.school, father, purpose=purpose)
        assert fed.reason(fed.query(father, consent)) == Reason.ALLOWED

    consent = fed.granted(fed.mother, fed.school, father, purpose=pb.PURPOSE_TUTORING)
    assert fed.reason(fed.query(father, consent)) == Reason.REQUESTER_UNKNOWN


def test_a_strangers_key_under_a_persons_root_is_refused(fed: Federation) -> None:
    father = fed.person("father")
    consent = fed.granted(fed.mother, fed.school, father, purpose=pb.PURPOSE_FAMILY)

    assert fed.reason(fed.query(father.signing_as(fed.person("thief")), consent)) == Reason.REQUESTER_UNKNOWN


def test_an_organization_may_hold_a_family_grant_only_with_its_current_key(fed: Federation) -> None:
    consent = fed.granted(fed.mother, fed.school, fed.tutor, purpose=pb.PURPOSE_FAMILY)

    assert fed.reason(fed.query(fed.tutor, consent)) == Reason.ALLOWED


# ---------------------------------------------------------------------------------------------- the chain


def test_a_delegatee_gets_what_was_passed_on(fed: Federation) -> None:
    first = fed.record(fed.delegation(fed.tutor, fed.consent, fed.club, onward_parties=[fed.camp.id]))
    second = fed.record(fed.delegation(fed.club, first, fed.camp, sections=["transcript.grades"]))

    decision = fed.ask(fed.query(fed.camp, fed.consent, ["transcript"], [first, second]))

    assert decision.reason == Reason.ALLOWED
    assert decision.granted == ("transcript.grades",)


def test_a_delegatee_without_its_chain_is_not_the_grantee(fed: Federation) -> None:
    fed.record(fed.delegation(fed.tutor, fed.consent, fed.club))

    assert fed.reason(fed.query(fed.club, fed.consent)) == Reason.NOT_GRANTEE


def test_the_grantee_does_not_ask_through_anothers_chain(fed: Federation) -> None:
    first = fed.record(fed.delegation(fed.tutor, fed.consent, fed.club))

    assert fed.reason(fed.query(fed.tutor, fed.consent, chain=[first])) == Reason.NOT_GRANTEE


def test_a_chain_longer_than_the_grants_depth_is_refused() -> None:
    fed = Federation(delegation_depth=1)
    first = fed.delegation(fed.tutor, fed.consent, fed.club)
    second = fed.delegation(fed.club, first, fed.camp)

    query = fed.query(fed.camp, fed.consent, chain=[first, second])

    assert fed.reason(query, delegations=(first, second)) == Reason.DELEGATION_TOO_DEEP


def test_a_grant_that_may_not_be_passed_on_is_too_shallow_for_any_chain() -> None:
    fed = Federation(delegation_depth=0)
    first = fed.delegation(fed.tutor, fed.consent, fed.club)

    assert fed.reason(fed.query(fed.tutor, fed.consent, chain=[first])) == Reason.DELEGATION_TOO_DEEP
    assert fed.reason(fed.query(fed.club, fed.consent, chain=[first])) == Reason.NOT_GRANTEE


def test_a_delegation_that_is_unknown_is_said_to_be(fed: Federation) -> None:
    first = fed.delegation(fed.tutor, fed.consent, fed.club)

    assert fed.reason(fed.query(fed.club, fed.consent, chain=[first])) == Reason.DELEGATION_UNKNOWN


def test_a_chain_that_does_not_hang_together_is_broken(fed: Federation) -> None:
    other = fed.granted(fed.mother, fed.school, fed.tutor, delegation_depth=1, onward_parties=[fed.club.id])
    of_another_grant = fed.delegation(fed.tutor, other, fed.club)
    by_another_party = fed.delegation(fed.rival, fed.consent, fed.club)

    for link in (of_another_grant, by_another_party):
        query = fed.query(fed.club, fed.consent, chain=[link])
        assert fed.reason(query, delegations=(link,)) == Reason.DELEGATION_BROKEN


def test_links_in_the_wrong_order_are_a_broken_chain(fed: Federation) -> None:
    first = fed.record(fed.delegation(fed.tutor, fed.consent, fed.club, onward_parties=[fed.camp.id]))
    second = fed.record(fed.delegation(fed.club, first, fed.camp))

    assert fed.reason(fed.query(fed.camp, fed.consent, chain=[second, first])) == Reason.DELEGATION_BROKEN
    assert fed.reason(fed.query(fed.camp, fed.consent, chain=[first, first])) == Reason.DELEGATION_BROKEN


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sections": ["voice"]}, Reason.DELEGATION_WIDENS),
        ({"actions": [pb.ACTION_APPEND]}, Reason.DELEGATION_WIDENS),
        ({"expires_at": NOW + 91 * DAY}, Reason.DELEGATION_WIDENS),
        ({"delegation_depth": 2}, Reason.DELEGATION_WIDENS),
        ({"onward_parties": [seed("nobody")], "delegation_depth": 1}, Reason.DELEGATION_PARTY_NOT_NAMED),
        ({"delegatee": seed("nobody")}, Reason.DELEGATION_PARTY_NOT_NAMED),
    ],
)
def test_a_recorded_link_that_widens_is_refused_all_the_same(
    changes: dict[str, Any], reason: Reason, fed: Federation
) -> None:
    link = fed.delegation(fed.tutor, fed.consent, fed.club, **changes)

    assert fed.reason(fed.query(fed.club, fed.consent, chain=[link]), delegations=(link,)) == reason


# ---------------------------------------------------------------------------------------------- the node


def test_a_node_that_nobody_admitted_is_unknown(fed: Federation) -> None:
    query = fed.query(fed.tutor, fed.consent)
    standings = {root: each for root, each in gather(fed.facts, query).standings.items() if root != fed.school.id}

    assert fed.reason(query, standings=standings) == Reason.NODE_UNKNOWN


def test_a_node_admitted_as_something_else_is_unknown(fed: Federation) -> None:
    fed.record(fed.admission(fed.school, pb.PRINCIPAL_KIND_PROVIDER))

    assert fed.reason(fed.query(fed.tutor, fed.consent)) == Reason.NODE_UNKNOWN


def test_a_suspended_node_answers_nobody(fed: Federation) -> None:
    fed.record(fed.suspension(fed.school))

    assert fed.reason(fed.query(fed.tutor, fed.consent)) == Reason.NODE_SUSPENDED


# ---------------------------------------------------------------------------------------------- life and endorsement


def test_a_grant_without_endorsement_is_pending(fed: Federation) -> None:
    pending = fed.record(fed.grant(fed.mother, fed.school, fed.tutor))

    assert fed.reason(fed.query(fed.tutor, pending)) == Reason.GRANT_PENDING


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        ("UNKNOWN_HANDLE", Reason.ENDORSEMENT_REFUSED),
        ("NO_AUTHORITY", Reason.ENDORSEMENT_REFUSED),
        ("SUSPENDED", Reason.ENDORSEMENT_REFUSED),
        ("QUORUM_NOT_MET", Reason.ENDORSEMENT_REFUSED),
        ("OBJECTED", Reason.OBJECTED),
        ("REVOKED_BEFORE", Reason.ENDORSEMENT_REFUSED),
        ("AUTHORITY_ENDED", Reason.AUTHORITY_ENDED),
        ("TERMS_REFUSED", Reason.ENDORSEMENT_REFUSED),
    ],
)
def test_a_refusal_by_the_node_ends_the_grant(verdict: str, reason: Reason, fed: Federation) -> None:
    number = pb.EndorsementVerdict.Value(f"ENDORSEMENT_VERDICT_{verdict}")
    fed.record(fed.endorsement(fed.consent, fed.school, verdict=number))

    assert fed.reason(fed.query(fed.tutor, fed.consent)) == reason


def test_an_endorsement_holds_until_before_its_end(fed: Federation) -> None:
    endorsement = fed.endorsement(fed.consent, fed.school, valid_until=NOW + 1000)
    query = fed.query(fed.tutor, fed.consent)
    facts = fed.facts_for(query, endorsement=endorsement)

    assert decide(facts, query, now=Millis(NOW + 999)).reason == Reason.ALLOWED
    assert decide(facts, query, now=Millis(NOW + 1000)).reason == Reason.ENDORSEMENT_EXPIRED


@pytest.mark.parametrize("reason", [Reason.GRANT_REVOKED, Reason.GRANT_SUPERSEDED])
def test_a_dead_grant_says_why_it_died(reason: Reason, fed: Federation) -> None:
    query = fed.query(fed.tutor, fed.consent)

    assert fed.reason(query, ended={fed.consent.id: reason}) == reason
    # also where its endorsement is missing
    assert fed.reason(query, ended={fed.consent.id: reason}, endorsement=None) == reason


def test_a_revoked_link_ends_the_chain_through_it(fed: Federation) -> None:
    first = fed.record(fed.delegation(fed.tutor, fed.consent, fed.club, onward_parties=[fed.camp.id]))
    second = fed.record(fed.delegation(fed.club, first, fed.camp))
    query = fed.query(fed.camp, fed.consent, chain=[first, second])
    assert fed.reason(query) == Reason.ALLOWED

    for link in (first, second):
        assert fed.reason(query, ended={link.id: Reason.DELEGATION_REVOKED}) == Reason.DELEGATION_REVOKED


@pytest.mark.parametrize("event", ["suspended", "unknown"])
def test_a_delegation_is_worth_no_more_than_who_gave_it(event: str, fed: Federation) -> None:
    first = fed.record(fed.delegation(fed.tutor, fed.consent, fed.club))
    query = fed.query(fed.club, fed.consent, chain=[first])
    standings = dict(gather(fed.facts, query).standings)
    if event == "suspended":
        standings[fed.tutor.id] = standings[fed.tutor.id].suspended(fed.suspension(fed.tutor))
    else:
        del standings[fed.tutor.id]

    assert fed.reason(query, standings=standings) == Reason.DELEGATION_REVOKED


def test_a_delegation_ends_with_the_admission_of_who_gave_it(fed: Federation) -> None:
    first = fed.record(fed.delegation(fed.tutor, fed.consent, fed.club))
    fed.record(fed.admission(fed.tutor, pb.PRINCIPAL_KIND_PROVIDER, valid_until=NOW + 100))
    query = fed.query(fed.club, fed.consent, chain=[first])
    facts = fed.facts_for(query)

    reasons = [decide(facts, query, now=Millis(NOW + at)).reason for at in (99, 100)]

    assert reasons == [Reason.ALLOWED, Reason.DELEGATION_REVOKED]


# ---------------------------------------------------------------------------------------------- times


def test_a_grant_holds_from_its_beginning_until_before_its_end() -> None:
    fed = Federation(delegation_depth=0, not_before=NOW + 100, expires_at=NOW + 200)
    query = fed.query(fed.tutor, fed.consent)
    facts = fed.facts_for(query)

    reasons = [decide(facts, query, now=Millis(NOW + at)).reason for at in (99, 100, 199, 200)]

    assert reasons == [Reason.GRANT_NOT_YET, Reason.ALLOWED, Reason.ALLOWED, Reason.GRANT_EXPIRED]


def test_a_delegation_holds_from_its_beginning_until_before_its_end(fed: Federation) -> None:
    first = fed.record(fed.delegation(fed.tutor, fed.consent, fed.club, not_before=NOW + 100, expires_at=NOW + 200))
    query = fed.query(fed.club, fed.consent, chain=[first])
    facts = fed.facts_for(query)

    reasons = [decide(facts, query, now=Millis(NOW + at)).reason for at in (99, 100, 199, 200)]

    assert reasons == [Reason.DELEGATION_NOT_YET, Reason.ALLOWED, Reason.ALLOWED, Reason.DELEGATION_EXPIRED]


# ---------------------------------------------------------------------------------------------- actions and uses


@pytest.mark.parametrize(
    ("granted", "asked", "reason"),
    [
        ([pb.ACTION_READ], pb.ACTION_READ, Reason.ALLOWED),
        ([pb.ACTION_READ], pb.ACTION_WATCH, Reason.ACTION_NOT_GRANTED),
        ([pb.ACTION_READ, pb.ACTION_WATCH], pb.ACTION_WATCH, Reason.ALLOWED),
        ([pb.ACTION_APPEND], pb.ACTION_READ, Reason.ACTION_NOT_GRANTED),
        # a consent to append alone opens nothing
        ([pb.ACTION_APPEND], pb.ACTION_APPEND, Reason.ACTION_NOT_GRANTED),
        ([pb.ACTION_READ, pb.ACTION_APPEND], pb.ACTION_APPEND, Reason.ACTION_NOT_GRANTED),
    ],
)
def test_only_what_was_granted_may_be_done(
    granted: list[pb.Action.ValueType], asked: pb.Action.ValueType, reason: Reason
) -> None:
    fed = Federation(actions=granted)

    assert fed.reason(fed.query(fed.tutor, fed.consent, action=asked)) == reason


@pytest.mark.parametrize(
    ("used", "cost", "reason"),
    [
        (0, 1, Reason.ALLOWED),
        (2, 1, Reason.ALLOWED),
        (3, 1, Reason.USES_EXHAUSTED),
        (4, 1, Reason.USES_EXHAUSTED),
        (3, 0, Reason.ALLOWED),
    ],
)
def test_uses_are_counted_up_to_the_limit(used: int, cost: int, reason: Reason) -> None:
    fed = Federation(max_uses=3)

    assert fed.reason(fed.query(fed.tutor, fed.consent), uses=(used,), use_cost=cost) == reason


def test_a_decider_that_does_not_count_uses_allows(fed: Federation) -> None:
    limited = Federation(max_uses=1)

    assert limited.reason(limited.query(limited.tutor, limited.consent)) == Reason.ALLOWED
    assert fed.reason(fed.query(fed.tutor, fed.consent), uses=(10**6,)) == Reason.ALLOWED


@pytest.mark.parametrize("uses", [(), (1, 1)])
def test_uses_that_do_not_belong_to_the_chain_are_a_mistake_of_the_caller(uses: tuple[int, ...]) -> None:
    fed = Federation(max_uses=3)

    with pytest.raises(ValueError, match="zip"):
        fed.reason(fed.query(fed.tutor, fed.consent), uses=uses)


def test_each_link_of_a_chain_has_its_own_limit() -> None:
    fed = Federation(max_uses=10)
    first = fed.record(fed.delegation(fed.tutor, fed.consent, fed.club, max_uses=2))
    query = fed.query(fed.club, fed.consent, chain=[first])

    assert fed.reason(query, uses=(5, 1)) == Reason.ALLOWED
    assert fed.reason(query, uses=(5, 2)) == Reason.USES_EXHAUSTED
    assert fed.reason(query, uses=(10, 1)) == Reason.USES_EXHAUSTED


# ---------------------------------------------------------------------------------------------- precedence


def test_the_first_reason_that_holds_is_the_answer() -> None:
    fed = Federation(delegation_depth=0, not_before=NOW + 1000, max_uses=1, records_until="2025-12-31")
    fed.record(fed.revocation(fed.mother, fed.consent, fed.school))
    fed.record(fed.suspension(fed.school))
    fed.record(fed.suspension(fed.tutor))
    asking: dict[str, Any] = {
        "sections": ["voice"],
        "action": pb.ACTION_WATCH,
        "records_from": "2026-01-01",
        "created_at": NOW - 1000,
        "expires_at": NOW,
    }
    expired = fed.endorsement(fed.consent, fed.school, created_at=NOW - 10, valid_until=NOW)
    knowing: dict[str, Any] = {"seen": True, "uses": (1,), "unfit": Reason.CLOCK, "endorsement": expired}
    now, reasons = NOW, []

    def look() -> None:
        query = fed.query(fed.tutor, fed.consent, **asking)
        reasons.append(decide(fed.facts_for(query, **knowing), query, now=now).reason)

    look()
    knowing["unfit"] = Reason.ALLOWED
    look()
    asking["expires_at"] = NOW + 5000
    look()
    knowing["seen"] = False
    look()
    fed.record(fed.admission(fed.tutor, pb.PRINCIPAL_KIND_PROVIDER))
    look()
    fed.record(fed.admission(fed.school, pb.PRINCIPAL_KIND_NODE))
    look()
    knowing["ended"] = {}
    look()
    del knowing["endorsement"]
    look()
    now = Millis(NOW + 1000)
    look()
    asking["action"] = pb.ACTION_READ
    look()
    del asking["records_from"]
    look()
    knowing["uses"] = (0,)
    look()
    asking["sections"] = ["transcript.grades"]
    look()

    assert reasons == [
        Reason.CLOCK,
        Reason.QUERY_EXPIRED,
        Reason.QUERY_REPLAYED,
        Reason.REQUESTER_SUSPENDED,
        Reason.NODE_SUSPENDED,
        Reason.GRANT_REVOKED,
        Reason.ENDORSEMENT_EXPIRED,
        Reason.GRANT_NOT_YET,
        Reason.ACTION_NOT_GRANTED,
        Reason.DATES_NOT_GRANTED,
        Reason.USES_EXHAUSTED,
        Reason.SECTION_NOT_GRANTED,
        Reason.ALLOWED,
    ]


def test_who_asks_is_decided_before_what_was_granted(fed: Federation) -> None:
    fed.record(fed.revocation(fed.mother, fed.consent, fed.school))
    unknown = fed.grant(fed.mother, fed.school, fed.tutor)

    assert fed.reason(fed.query(fed.organization("nobody"), unknown)) == Reason.REQUESTER_UNKNOWN
    assert fed.reason(fed.query(fed.tutor.signing_as(fed.rival), unknown)) == Reason.KEY_NOT_CERTIFIED
    assert fed.reason(fed.query(fed.rival, fed.consent, ["voice"])) == Reason.NOT_GRANTEE


# ---------------------------------------------------------------------------------------------- how long it holds


def test_an_allowed_access_ends_with_whatever_ends_first(fed: Federation) -> None:
    first = fed.record(fed.delegation(fed.tutor, fed.consent, fed.club, expires_at=NOW + 80 * DAY))
    query = fed.query(fed.club, fed.consent, chain=[first])
    facts = fed.facts_for(query)
    endorsement = facts.endorsement
    assert endorsement is not None

    assert end_of_lease(facts, query) == endorsement.payload.valid_until
    assert end_of_lease(replace(facts, endorsement=None), query) == NOW + 80 * DAY
    assert end_of_lease(replace(facts, endorsement=None, delegations=()), query) == NOW + 90 * DAY
    assert end_of_lease(replace(facts, endorsement=None, delegations=(None,)), query) == NOW + 90 * DAY


@pytest.mark.parametrize("who", ["club", "tutor", "school"])
def test_an_allowed_access_ends_with_the_admission_of_any_concerned(who: str, fed: Federation) -> None:
    first = fed.record(fed.delegation(fed.tutor, fed.consent, fed.club))
    party = getattr(fed, who)
    kind = pb.PRINCIPAL_KIND_NODE if who == "school" else pb.PRINCIPAL_KIND_PROVIDER
    fed.record(fed.admission(party, kind, valid_until=NOW + 5 * DAY))
    query = fed.query(fed.club, fed.consent, chain=[first])

    assert end_of_lease(fed.facts_for(query), query) == NOW + 5 * DAY


def test_an_allowed_access_ends_with_the_requesters_key_but_not_with_others(fed: Federation) -> None:
    first = fed.record(fed.delegation(fed.tutor, fed.consent, fed.club))
    fed.record(fed.key_cert(fed.tutor, 2, valid_until=NOW + 3 * DAY))
    through = fed.query(fed.club, fed.consent, chain=[first])
    direct = fed.query(fed.tutor, fed.consent)

    assert end_of_lease(fed.facts_for(direct), direct) == NOW + 3 * DAY
    assert end_of_lease(fed.facts_for(through), through) > NOW + 3 * DAY


def test_what_was_never_allowed_ends_at_once(fed: Federation) -> None:
    query = fed.query(fed.person("stranger"), fed.grant(fed.mother, fed.school, fed.tutor))

    assert end_of_lease(fed.facts_for(query), query) == query.payload.created_at


def test_a_standing_without_admission_ends_nothing(fed: Federation) -> None:
    father = fed.person("father")
    consent = fed.granted(fed.mother, fed.school, father, purpose=pb.PURPOSE_FAMILY, expires_at=NOW + DAY)
    fed.record(fed.suspension(father))
    query = fed.query(father, consent)

    assert end_of_lease(fed.facts_for(query), query) == NOW + DAY
