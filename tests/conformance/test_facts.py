"""Every store of facts behaves alike: in memory, in SQL on each database there is, and out of an audit bundle.

A store is a :class:`tests.scenarios.world.Store`: the three reads of ``FactReader``, and ``record``. What may be
recorded is judged by the same function everywhere (:mod:`permslip.admissible`); here it is about what then holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.auditing.bundle import Bundle
from permslip.auditing.bundle_facts import BundleFacts
from permslip.capabilities import Capability, Delegated, chain_of
from permslip.errors import PermslipError
from permslip.facts import MemoryFacts
from permslip.hosting.database import open_engine, writing
from permslip.hosting.facts_schema import fact_tables
from permslip.hosting.facts_store import FactStore
from permslip.hosting.ledger import Ledger
from permslip.hosting.schema import ledger_tables
from permslip.reasons import Reason
from permslip.standing import Standing
from permslip.statements import Signed
from tests.scenarios.world import FEDERATION, NOW, Party, Store, World

PROVIDER, NODE = pb.PRINCIPAL_KIND_PROVIDER, pb.PRINCIPAL_KIND_NODE


class SqlFacts:
    """Facts in SQL, recorded through a ledger as a broker or node does."""

    def __init__(self, url: str, *, cache_entries: int, clock: Callable[[], int] = lambda: NOW) -> None:
        metadata = MetaData()
        self.tables, self.ledger_tables = fact_tables(metadata), ledger_tables(metadata)
        self.engine = open_engine(url)
        with writing(self.engine) as connection:
            metadata.create_all(connection)
        self.runner = asyncio.Runner()
        self.ledger = Ledger.open(
            self.engine,
            self.ledger_tables,
            federation=FEDERATION,
            keeper=bytes(32),
            origin="fed.example/broker",
            clock=clock,
        )
        self.store = FactStore(self.engine, self.tables, self.ledger_tables, cache_entries=cache_entries)

    @property
    def position(self) -> int:
        return self.store.position

    def capability(self, grant_id: bytes) -> Capability | None:
        return self.store.capability(grant_id)

    def delegated(self, delegation_id: bytes) -> Delegated | None:
        return self.store.delegated(delegation_id)

    def standing(self, root: bytes) -> Standing | None:
        return self.store.standing(root)

    def record(self, signed: Signed[Any]) -> None:
        self.store.committed(self.runner.run(self.ledger.append(self.store.draft(signed))))

    def close(self) -> None:
        self.runner.run(self.ledger.close())
        self.runner.close()
        self.engine.dispose()


class AuditedFacts:
    """Facts in an audit bundle, recorded as a replay does: what it folds is in the bundle."""

    def __init__(self, path: Path, *, cache_entries: int) -> None:
        keys = {"federation": FEDERATION, "broker_root": "", "operator": ""}
        self.bundle = Bundle.create(path, keys)
        self.store = BundleFacts(self.bundle, cache_entries=cache_entries)

    @property
    def position(self) -> int:
        return self.store.position

    def capability(self, grant_id: bytes) -> Capability | None:
        return self.store.capability(grant_id)

    def delegated(self, delegation_id: bytes) -> Delegated | None:
        return self.store.delegated(delegation_id)

    def standing(self, root: bytes) -> Standing | None:
        return self.store.standing(root)

    def record(self, signed: Signed[Any]) -> None:
        with self.bundle.transaction():
            self.bundle.add_statements([signed])
        self.store.record(signed)

    def close(self) -> None:
        self.store.close()
        self.bundle.close()


@pytest.fixture(params=["memory", "sql", "sql with a cache of one", "bundle", "bundle with a cache of one"])
def store(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[Store]:
    """One store of each kind, empty."""
    if request.param == "memory":
        yield MemoryFacts()
        return
    if request.param.startswith("bundle"):
        audited = AuditedFacts(tmp_path / "audit.db", cache_entries=1 if request.param.endswith("one") else 1000)
        yield audited
        audited.close()
        return
    facts = SqlFacts(database_url, cache_entries=1 if request.param.endswith("one") else 1000)
    yield facts
    facts.close()


class Federation(World):
    """A school, a tutor who may pass on to the club and the camp, a mother and a father."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.school = self.node("school")
        self.tutor, self.club, self.camp = (self.provider(name) for name in ("tutor", "club", "camp"))
        self.mother, self.father = self.person("mother"), self.person("father")

    def deposit(self, **changes: Any) -> Signed[pb.Grant]:
        onward = sorted([self.club.id, self.camp.id])
        return self.record(
            self.grant(
                self.mother, self.school, self.tutor, **{"delegation_depth": 2, "onward_parties": onward, **changes}
            )
        )

    def capability(self, grant: Signed[pb.Grant]) -> Capability:
        found = self.facts.capability(grant.id)
        assert found is not None
        return found

    def standing(self, party: Party) -> Standing:
        found = self.facts.standing(party.id)
        assert found is not None
        return found

    def recorded(self, signed: Signed[Any]) -> bool:
        """Record it, unless it is refused."""
        try:
            self.record(signed)
        except PermslipError:
            return False
        return True


@pytest.fixture
def fed(store: Store) -> Federation:
    return Federation(store)


def same(one: Signed[Any] | None, other: Signed[Any] | None) -> bool:
    """Whether both are the same statement, byte for byte."""
    return one is not None and other is not None and (one.id, one.raw) == (other.id, other.raw)


# ---------------------------------------------------------------------------------------------- reading


def test_what_was_never_recorded_is_unknown(fed: Federation) -> None:
    grant = fed.grant(fed.mother, fed.school, fed.tutor)

    assert fed.facts.capability(grant.id) is None
    assert fed.facts.delegated(grant.id) is None
    assert fed.facts.standing(fed.person("stranger").id) is None


def test_each_kind_of_subject_is_found_by_its_own_read_alone(fed: Federation) -> None:
    grant = fed.deposit()
    delegation = fed.record(fed.delegation(fed.tutor, grant, fed.club))

    assert fed.facts.delegated(grant.id) is None
    assert fed.facts.capability(delegation.id) is None
    assert fed.facts.capability(fed.school.id) is None


def test_recording_moves_the_position_on(fed: Federation) -> None:
    before = fed.facts.position

    grant = fed.deposit()
    assert fed.facts.position == before + 1
    fed.record(fed.endorsement(grant, fed.school))
    assert fed.facts.position == before + 2


def test_a_statement_that_changes_no_facts_is_recorded_too(fed: Federation) -> None:
    grant = fed.deposit()
    revocation = fed.record(fed.revocation(fed.mother, grant, fed.school))
    before, position = fed.capability(grant), fed.facts.position

    fed.record(fed.acknowledgement(fed.school, revocation))

    assert fed.capability(grant) == before
    assert fed.facts.position == position + 1


# ---------------------------------------------------------------------------------------------- grants


def test_a_deposited_grant_is_pending_and_alive(fed: Federation) -> None:
    grant = fed.deposit()

    found = fed.capability(grant)

    assert same(found.grant, grant)
    assert (found.endorsement, found.approval, found.ended) == (None, None, Reason.ALLOWED)


def test_the_latest_word_of_the_node_counts_and_its_latest_approval_is_kept(fed: Federation) -> None:
    grant = fed.deposit()
    approval = fed.record(fed.endorsement(grant, fed.school))
    assert same(fed.capability(grant).endorsement, approval)
    assert same(fed.capability(grant).approval, approval)

    refusal = fed.record(fed.endorsement(grant, fed.school, verdict=pb.ENDORSEMENT_VERDICT_SUSPENDED))
    assert same(fed.capability(grant).endorsement, refusal)
    assert same(fed.capability(grant).approval, approval)

    renewed = fed.record(fed.endorsement(grant, fed.school, guardians=[fed.father]))
    assert same(fed.capability(grant).endorsement, renewed)
    assert same(fed.capability(grant).approval, renewed)


def test_a_refusal_that_comes_first_is_no_approval(fed: Federation) -> None:
    grant = fed.deposit()

    refusal = fed.record(fed.endorsement(grant, fed.school, verdict=pb.ENDORSEMENT_VERDICT_NO_AUTHORITY))

    assert same(fed.capability(grant).endorsement, refusal)
    assert fed.capability(grant).approval is None


def test_an_endorsement_concerns_its_own_grant_alone(fed: Federation) -> None:
    one, other = fed.deposit(), fed.deposit()

    fed.record(fed.endorsement(one, fed.school))

    assert fed.capability(other).endorsement is None


def test_a_revoked_grant_is_dead_and_keeps_its_endorsement(fed: Federation) -> None:
    grant, other = fed.deposit(), fed.deposit()
    endorsement = fed.record(fed.endorsement(grant, fed.school))

    fed.record(fed.revocation(fed.mother, grant, fed.school))

    assert fed.capability(grant).ended == Reason.GRANT_REVOKED
    assert same(fed.capability(grant).endorsement, endorsement)
    assert fed.capability(other).ended == Reason.ALLOWED


def test_a_second_revocation_changes_nothing(fed: Federation) -> None:
    grant = fed.deposit()
    fed.record(fed.endorsement(grant, fed.school, guardians=[fed.father]))
    fed.record(fed.revocation(fed.mother, grant, fed.school))
    before = fed.capability(grant)

    fed.record(fed.revocation(fed.father, grant, fed.school))

    assert fed.capability(grant) == before


# ---------------------------------------------------------------------------------------------- superseding


def test_a_grant_supersedes_from_its_endorsement_on_and_not_before(fed: Federation) -> None:
    old = fed.deposit()
    new = fed.deposit(supersedes=[old.id])
    assert fed.capability(old).ended == Reason.ALLOWED
    fed.record(fed.endorsement(new, fed.school, verdict=pb.ENDORSEMENT_VERDICT_QUORUM_NOT_MET))
    assert fed.capability(old).ended == Reason.ALLOWED

    fed.record(fed.endorsement(new, fed.school))

    assert fed.capability(old).ended == Reason.GRANT_SUPERSEDED
    assert fed.capability(new).ended == Reason.ALLOWED


def test_superseding_resurrects_nothing(fed: Federation) -> None:
    oldest = fed.deposit()
    old = fed.deposit(supersedes=[oldest.id])
    fed.record(fed.endorsement(old, fed.school))
    new = fed.deposit(supersedes=[old.id])
    fed.record(fed.endorsement(new, fed.school))

    fed.record(fed.revocation(fed.mother, new, fed.school))
    fed.record(fed.endorsement(new, fed.school, verdict=pb.ENDORSEMENT_VERDICT_AUTHORITY_ENDED))

    ends = [fed.capability(grant).ended for grant in (oldest, old, new)]
    assert ends == [Reason.GRANT_SUPERSEDED, Reason.GRANT_SUPERSEDED, Reason.GRANT_REVOKED]


def test_a_revoked_grant_stays_revoked_when_it_is_superseded(fed: Federation) -> None:
    old = fed.deposit()
    new = fed.deposit(supersedes=[old.id])
    fed.record(fed.revocation(fed.mother, old, fed.school))

    fed.record(fed.endorsement(new, fed.school))

    assert fed.capability(old).ended == Reason.GRANT_REVOKED


def test_a_superseded_grant_may_still_be_revoked(fed: Federation) -> None:
    old = fed.deposit()
    fed.record(fed.endorsement(fed.deposit(supersedes=[old.id]), fed.school))

    fed.record(fed.revocation(fed.mother, old, fed.school))

    assert fed.capability(old).ended == Reason.GRANT_REVOKED


def test_several_grants_are_superseded_at_once(fed: Federation) -> None:
    olds = [fed.deposit() for _ in range(3)]

    fed.record(fed.endorsement(fed.deposit(supersedes=sorted(each.id for each in olds)), fed.school))

    assert {fed.capability(each).ended for each in olds} == {Reason.GRANT_SUPERSEDED}


# ---------------------------------------------------------------------------------------------- delegations


def test_delegations_know_the_grant_they_come_from(fed: Federation) -> None:
    grant = fed.deposit()
    first = fed.record(fed.delegation(fed.tutor, grant, fed.club, onward_parties=[fed.camp.id]))
    second = fed.record(fed.delegation(fed.club, first, fed.camp))

    for delegation in (first, second):
        found = fed.facts.delegated(delegation.id)
        assert found is not None
        assert same(found.delegation, delegation)
        assert (found.grant_id, found.ended) == (grant.id, Reason.ALLOWED)
    assert [each.id for each in chain_of(fed.facts, second.id)] == [first.id, second.id]


def test_a_revoked_delegation_is_dead_and_its_grant_is_not(fed: Federation) -> None:
    grant = fed.deposit()
    first = fed.record(fed.delegation(fed.tutor, grant, fed.club))
    other = fed.record(fed.delegation(fed.tutor, grant, fed.camp))

    fed.record(fed.revocation(fed.tutor, first, fed.school, "DELEGATOR"))

    ends = {}
    for delegation in (first, other):
        found = fed.facts.delegated(delegation.id)
        assert found is not None
        ends[delegation.id] = found.ended
    assert ends == {first.id: Reason.DELEGATION_REVOKED, other.id: Reason.ALLOWED}
    assert fed.capability(grant).ended == Reason.ALLOWED


# ---------------------------------------------------------------------------------------------- organizations


def test_an_admission_a_suspension_and_a_certificate_stand_side_by_side(fed: Federation) -> None:
    party = fed.organization("chess club")
    admission = fed.record(fed.admission(party, PROVIDER))
    cert = fed.record(fed.key_cert(party))
    suspension = fed.record(fed.suspension(party))

    found = fed.standing(party)

    assert found.root == party.id
    assert same(found.admission, admission)
    assert same(found.cert, cert)
    assert same(found.suspension, suspension)


def test_a_suspension_may_come_before_any_admission(fed: Federation) -> None:
    party = fed.organization("chess club")

    suspension = fed.record(fed.suspension(party))

    found = fed.standing(party)
    assert found.admission is None
    assert same(found.suspension, suspension)


def test_a_later_admission_replaces_the_earlier_and_ends_the_suspension(fed: Federation) -> None:
    fed.record(fed.suspension(fed.tutor))

    admission = fed.record(fed.admission(fed.tutor, NODE, valid_until=NOW + 1))

    found = fed.standing(fed.tutor)
    assert same(found.admission, admission)
    assert found.suspension is None
    assert found.cert is not None


def test_a_certificate_with_a_higher_number_replaces_the_earlier(fed: Federation) -> None:
    newer = fed.tutor.with_online_key(2)

    cert = fed.record(fed.key_cert(newer, 7))

    assert same(fed.standing(fed.tutor).cert, cert)


# ---------------------------------------------------------------------------------------------- replay


@pytest.mark.parametrize(
    "make",
    [
        lambda fed: fed.admission(fed.tutor, PROVIDER),
        lambda fed: fed.suspension(fed.tutor),
        lambda fed: fed.key_cert(fed.tutor, 2),
        lambda fed: fed.endorsement(fed.deposit(), fed.school),
    ],
    ids=["admission", "suspension", "key-cert", "endorsement"],
)
def test_nothing_older_is_recorded_after_something_newer(
    make: Callable[[Federation], Signed[Any]], fed: Federation
) -> None:
    old = make(fed)
    if old.kind.name == "endorsement":
        grant = fed.facts.capability(old.payload.grant_id)
        assert grant is not None
        fed.record(fed.endorsement(grant.grant, fed.school, verdict=pb.ENDORSEMENT_VERDICT_SUSPENDED))
    elif old.kind.name == "key-cert":
        fed.record(fed.key_cert(fed.tutor, 3))
    else:
        fed.record(fed.suspension(fed.tutor))
    before = fed.facts.standing(fed.tutor.id), fed.facts.position

    assert not fed.recorded(old)

    assert (fed.facts.standing(fed.tutor.id), fed.facts.position) == before


def test_an_approval_after_the_revocation_is_not_recorded(fed: Federation) -> None:
    grant = fed.deposit()
    fed.record(fed.revocation(fed.mother, grant, fed.school))

    assert not fed.recorded(fed.endorsement(grant, fed.school))


# ---------------------------------------------------------------------------------------------- decisions


def test_decisions_follow_what_was_recorded(fed: Federation) -> None:
    grant = fed.deposit()
    first = fed.delegation(fed.tutor, grant, fed.club)
    reasons = []

    def look() -> None:
        direct = fed.ask(fed.query(fed.tutor, grant)).reason
        through = fed.ask(fed.query(fed.club, grant, chain=[first])).reason
        reasons.append((direct, through))

    look()
    fed.record(first)
    look()
    fed.record(fed.endorsement(grant, fed.school))
    look()
    fed.record(fed.revocation(fed.tutor, first, fed.school, "DELEGATOR"))
    look()
    fed.record(fed.suspension(fed.tutor))
    look()
    fed.record(fed.revocation(fed.mother, grant, fed.school))
    fed.record(fed.admission(fed.tutor, PROVIDER))
    look()

    assert reasons == [
        (Reason.GRANT_PENDING, Reason.DELEGATION_UNKNOWN),
        (Reason.GRANT_PENDING, Reason.GRANT_PENDING),
        (Reason.ALLOWED, Reason.ALLOWED),
        (Reason.ALLOWED, Reason.DELEGATION_REVOKED),
        (Reason.REQUESTER_SUSPENDED, Reason.DELEGATION_REVOKED),
        (Reason.GRANT_REVOKED, Reason.GRANT_REVOKED),
    ]
