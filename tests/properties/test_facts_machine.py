"""Facts over time: whatever is recorded, replayed or refused, what is dead stays dead and what is old stays old.

A machine deposits, endorses, revokes, suspends and replays at random against the facts in memory. Beside them it keeps
its own small account of what must hold, and compares after every step.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import settings, strategies as s
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import PermslipError
from permslip.facts import MemoryFacts
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.scenarios.world import MINUTE, World

PROVIDER = pb.PRINCIPAL_KIND_PROVIDER
REFUSALS = sorted(number for number in pb.EndorsementVerdict.values() if number > pb.ENDORSEMENT_VERDICT_ENDORSED)
DEAD = (Reason.GRANT_REVOKED, Reason.GRANT_SUPERSEDED)


class Facts(RuleBasedStateMachine):
    grants = Bundle("grants")
    delegations = Bundle("delegations")
    held_back = Bundle("held_back")

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.school, self.tutor, self.club = (
            self.world.node("school"),
            self.world.provider("tutor"),
            self.world.provider("club"),
        )
        self.mother = self.world.person("mother")
        self.history: list[Signed[Any]] = []
        self.ended: dict[bytes, Reason] = {}
        self.suspended = False
        self.seq = 1
        self.approved: set[bytes] = set()

    def record(self, signed: Signed[Any]) -> None:
        self.world.record(signed)
        self.history.append(signed)

    def state(self) -> tuple[Any, ...]:
        """Everything that a decision could see."""
        facts = self.world.facts
        return (
            [facts.capability(each.id) for each in self.history if each.kind is st.GRANT],
            [facts.delegated(each.id) for each in self.history if each.kind is st.DELEGATION],
            [facts.standing(each.id) for each in (self.school, self.tutor, self.club)],
        )

    # ------------------------------------------------------------------------------------------ what happens

    @rule(minutes=s.integers(1, 3))
    def time_passes(self, minutes: int) -> None:
        self.world.pass_time(minutes * MINUTE)

    @rule(target=grants, superseded=s.lists(grants, max_size=2))
    def deposit(self, superseded: list[Signed[pb.Grant]]) -> Signed[pb.Grant]:
        grant = self.world.grant(
            self.mother,
            self.school,
            self.tutor,
            delegation_depth=1,
            onward_parties=[self.club.id],
            supersedes=sorted({each.id for each in superseded}),
        )
        self.record(grant)
        return grant

    @rule(grant=grants)
    def endorse(self, grant: Signed[pb.Grant]) -> None:
        endorsement = self.world.endorsement(grant, self.school)
        if self.ended.get(grant.id) in DEAD:
            self.must_be_refused(endorsement)
            return
        self.record(endorsement)
        self.approved.add(grant.id)
        for identifier in grant.payload.supersedes:
            self.ended.setdefault(identifier, Reason.GRANT_SUPERSEDED)

    @rule(grant=grants, verdict=s.sampled_from(REFUSALS))
    def refuse(self, grant: Signed[pb.Grant], verdict: Any) -> None:
        self.record(self.world.endorsement(grant, self.school, verdict=verdict))
        self.approved.discard(grant.id)

    @rule(target=delegations, grant=grants)
    def delegate(self, grant: Signed[pb.Grant]) -> Any:
        delegation = self.world.delegation(self.tutor, grant, self.club)
        self.record(delegation)
        return delegation

    @rule(grant=grants)
    def revoke(self, grant: Signed[pb.Grant]) -> None:
        self.record(self.world.revocation(self.mother, grant, self.school))
        self.ended[grant.id] = Reason.GRANT_REVOKED

    @rule(delegation=delegations)
    def revoke_delegation(self, delegation: Signed[pb.Delegation]) -> None:
        self.record(self.world.revocation(self.tutor, delegation, self.school, "DELEGATOR"))
        self.ended[delegation.id] = Reason.DELEGATION_REVOKED

    @rule()
    def suspend(self) -> None:
        self.record(self.world.suspension(self.club))
        self.suspended = True

    @rule()
    def admit(self) -> None:
        self.record(self.world.admission(self.club, PROVIDER))
        self.suspended = False

    @rule()
    def certify(self) -> None:
        self.seq += 1
        self.record(self.world.key_cert(self.club, self.seq))

    # ------------------------------------------------------------------------------------------ what an attacker tries

    @rule(target=held_back, which=s.sampled_from(["admission", "suspension", "cert"]))
    def sign_and_hold_back(self, which: str) -> Any:
        """Genuine, but kept until something newer has been recorded."""
        if which == "admission":
            return self.world.admission(self.club, PROVIDER)
        if which == "suspension":
            return self.world.suspension(self.club)
        return self.world.key_cert(self.club, self.seq)

    @rule(grant=grants, target=held_back)
    def hold_back_an_endorsement(self, grant: Signed[pb.Grant]) -> Any:
        return self.world.endorsement(grant, self.school)

    @rule(signed=consumes(held_back), target=held_back)
    def deliver_late(self, signed: Signed[Any]) -> Any:
        """It counts only where nothing newer of its kind has been recorded."""
        newest = max(
            (
                each.payload.created_at
                for each in self.history
                if each.kind in self.same_words(signed) and self.about(each) == self.about(signed)
            ),
            default=0,
        )
        old = signed.payload.seq <= self.seq if signed.kind is st.KEY_CERT else signed.payload.created_at <= newest
        dead = signed.kind is st.ENDORSEMENT and self.ended.get(signed.payload.grant_id) in DEAD
        if old or dead:
            self.must_be_refused(signed)
            return multiple()
        self.record(signed)
        if signed.kind is st.ENDORSEMENT:
            self.approved.add(signed.payload.grant_id)
            grant = self.world.facts.capability(signed.payload.grant_id)
            assert grant is not None
            for identifier in grant.grant.payload.supersedes:
                self.ended.setdefault(identifier, Reason.GRANT_SUPERSEDED)
        elif signed.kind is not st.KEY_CERT:
            self.suspended = signed.kind is st.SUSPENSION
        return multiple()

    @rule(data=s.data())
    def replay(self, data: s.DataObject) -> None:
        """Whatever was recorded before changes nothing when it comes again."""
        if not self.history:
            return
        signed = data.draw(s.sampled_from(self.history))
        before = self.state()
        with suppress(PermslipError):
            self.world.record(signed)
        assert self.state() == before

    # ------------------------------------------------------------------------------------------ what must hold

    @invariant()
    def the_dead_stay_dead(self) -> None:
        for each in self.history:
            if each.kind is st.GRANT:
                capability = self.world.facts.capability(each.id)
                assert capability is not None
                assert capability.ended == self.ended.get(each.id, Reason.ALLOWED)
            elif each.kind is st.DELEGATION:
                delegated = self.world.facts.delegated(each.id)
                assert delegated is not None
                assert delegated.ended == self.ended.get(each.id, Reason.ALLOWED)

    @invariant()
    def the_last_word_counts(self) -> None:
        club = self.world.facts.standing(self.club.id)
        assert club is not None
        assert club.is_admitted(PROVIDER, self.world.now) is not self.suspended
        assert club.cert is not None
        assert club.cert.payload.seq == self.seq

    @invariant()
    def only_living_and_approved_grants_open_anything(self) -> None:
        for each in self.history:
            if each.kind is st.GRANT:
                allowed = self.world.ask(self.world.query(self.tutor, each)).reason == Reason.ALLOWED
                assert allowed == (each.id in self.approved and each.id not in self.ended)

    # ------------------------------------------------------------------------------------------ inside

    def must_be_refused(self, signed: Signed[Any]) -> None:
        before = self.state()
        try:
            self.world.record(signed)
        except PermslipError:
            assert self.state() == before
            return
        raise AssertionError(f"{signed.kind.name} should have been refused")

    @staticmethod
    def same_words(signed: Signed[Any]) -> tuple[st.Kind[Any], ...]:
        if signed.kind in (st.ADMISSION, st.SUSPENSION):
            return (st.ADMISSION, st.SUSPENSION)
        return (signed.kind,)

    @staticmethod
    def about(signed: Signed[Any]) -> bytes:
        return bytes(signed.payload.grant_id if signed.kind is st.ENDORSEMENT else signed.payload.root)


TestFacts = Facts.TestCase
TestFacts.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_a_store_starts_empty() -> None:
    facts = MemoryFacts()

    assert (facts.position, facts.capability(bytes(32)), facts.delegated(bytes(32)), facts.standing(bytes(32))) == (
        0,
        None,
        None,
        None,
    )
