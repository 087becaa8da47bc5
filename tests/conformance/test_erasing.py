"""Erasing, on each database: what is over is gone, everything else stands, and the ledger still proves all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, make_url

from permslip import statements as st
from permslip._pb.permslip.v1 import auditor_pb2, ledger_pb2, statement_pb2 as pb
from permslip.audit_scope import make_scope
from permslip.errors import MalformedError, UnavailableError
from permslip.hosting.database import open_engine
from permslip.hosting.erasing import MOST_IDS, Erased, Erasing
from permslip.hosting.facts_store import FactStore
from permslip.hosting.ledger import Draft
from permslip.hosting.ledger_pages import LedgerPages
from permslip.merkle import Frontier, leaf_hash, verify_inclusion
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.conformance.test_facts import Federation, SqlFacts
from tests.scenarios.world import DAY, NOW

RULE = "before-2026-01-01"


class Archive:
    """A federation whose facts are in SQL, and what erases from it."""

    def __init__(self, url: str) -> None:
        self.now: int = NOW
        self.kept: set[bytes] = set()
        self.sql = SqlFacts(url, cache_entries=100, clock=lambda: self.now)
        self.fed = Federation(self.sql)

    def erase(self, before: int, *, dry_run: bool = False) -> Erased:
        return self.sql.runner.run(self.erasing().erase(before, rule=RULE, dry_run=dry_run))

    def erasing(self) -> Erasing:
        def keep(_connection: Connection, grants: Sequence[bytes]) -> set[bytes]:
            return self.kept & set(grants)

        return Erasing(self.sql.ledger, self.sql.engine, self.sql.tables, self.sql.ledger_tables, keep=keep)

    def asked(self, *queries: Signed[pb.Query]) -> None:
        """Accesses that were decided."""
        drafts = [
            Draft(
                "access_decided",
                ledger_pb2.AccessDecided(query_id=each.id, grant_id=each.payload.grant_id),
                evidence=each.raw,
            )
            for each in queries
        ]
        self.sql.store.committed(self.sql.runner.run(self.sql.ledger.append(*drafts)))

    def entries(self) -> list[ledger_pb2.LogEntry]:
        """Every entry, after its hash, its proof and the root were computed anew."""
        ledger = self.sql.ledger
        head = ledger.read_head()
        leaves = list(ledger.leaves(0, head.size))
        frontier = Frontier()
        frontier.extend([each.leaf_hash for each in leaves])
        assert frontier.root() == head.root
        for leaf in leaves[:: max(1, len(leaves) // 20)]:
            assert leaf_hash(leaf.leaf or b"") == leaf.leaf_hash
            proof = ledger.inclusion_proof(leaf.position, head.size)
            verify_inclusion(leaf.leaf_hash, leaf.position, head.size, proof, head.root)
        return [ledger_pb2.LogEntry.FromString(each.leaf or b"") for each in leaves]

    def erased(self) -> list[bytes]:
        """The ids that the ledger says were erased."""
        events = [each.statements_erased for each in self.entries() if each.HasField("statements_erased")]
        assert all(each.retention_rule == RULE for each in events)
        assert all(list(each.statement_ids) == sorted(set(each.statement_ids)) for each in events)
        return [identifier for each in events for identifier in each.statement_ids]

    def is_there(self, *statements: Signed[Any]) -> list[bool]:
        found = self.sql.store.envelopes([each.id for each in statements])
        return [each.id in found for each in statements]


@pytest.fixture
def archive(database_url: str) -> Iterator[Archive]:
    made = Archive(database_url)
    yield made
    made.sql.close()


def family(archive: Archive, **changes: Any) -> list[Signed[Any]]:
    """A grant and one of everything that can hang on it."""
    fed = archive.fed
    grant = fed.deposit(**changes)
    endorsement = fed.record(fed.endorsement(grant, fed.school))
    delegation = fed.record(fed.delegation(fed.tutor, grant, fed.club))
    below = fed.record(fed.delegation(fed.club, delegation, fed.camp))
    first = fed.record(fed.revocation(fed.tutor, below, fed.school, "DELEGATOR"))
    told = fed.record(fed.acknowledgement(fed.school, first))
    revocation = fed.record(fed.revocation(fed.mother, grant, fed.school))
    return [grant, endorsement, delegation, below, first, told, revocation]


def test_a_grant_that_ended_goes_with_all_that_hangs_on_it_and_nothing_else(archive: Archive) -> None:
    over, lasting = family(archive, expires_at=NOW + DAY), family(archive, expires_at=NOW + 60 * DAY)
    archive.now = NOW + 10 * DAY

    erased = archive.erase(NOW + 5 * DAY)

    assert archive.is_there(*over) == [False] * len(over)
    assert archive.is_there(*lasting) == [True] * len(lasting)
    assert sorted(archive.erased()) == sorted(each.id for each in over)
    assert (erased.grants, erased.statements, erased.kept) == (1, len(over), 0)
    fed = archive.fed
    assert fed.standing(fed.school).admission is not None
    assert fed.standing(fed.tutor).cert is not None


def test_what_was_erased_is_unknown_to_decisions_and_to_whoever_judges_statements(archive: Archive) -> None:
    over = family(archive, expires_at=NOW + DAY)
    fed, grant, delegation = archive.fed, over[0], over[2]
    archive.now = NOW + 10 * DAY
    fed.pass_time(10 * DAY)

    archive.erase(NOW + 5 * DAY)
    archive.sql.store.catch_up()

    assert fed.facts.capability(grant.id) is None
    assert fed.facts.delegated(delegation.id) is None
    assert fed.ask(fed.query(fed.tutor, grant)).reason == Reason.GRANT_UNKNOWN
    assert archive.sql.store.grants_for_grantee(fed.tutor.id) == []
    assert archive.sql.store.delegations_of(grant.id) == []
    late: list[Signed[Any]] = [
        fed.endorsement(grant, fed.school),
        fed.revocation(fed.mother, grant, fed.school),
        fed.delegation(fed.tutor, grant, fed.club),
        fed.grant(fed.mother, fed.school, fed.tutor, supersedes=[grant.id]),
        grant,
    ]
    for each in late:
        with pytest.raises(MalformedError):
            fed.record(each)


def test_a_grant_that_was_revoked_stays_until_its_own_end(archive: Archive) -> None:
    revoked = family(archive, expires_at=NOW + 60 * DAY)
    archive.now = NOW + 50 * DAY

    assert archive.erase(NOW + 49 * DAY) == Erased()
    assert archive.is_there(*revoked) == [True] * len(revoked)
    assert archive.fed.capability(revoked[0]).ended == Reason.GRANT_REVOKED


def test_a_grant_that_must_be_kept_stays_with_all_that_hangs_on_it(archive: Archive) -> None:
    kept, over = family(archive, expires_at=NOW + DAY), family(archive, expires_at=NOW + DAY)
    archive.kept = {kept[0].id}
    archive.now = NOW + 10 * DAY

    erased = archive.erase(NOW + 5 * DAY)

    assert archive.is_there(*kept) == [True] * len(kept)
    assert archive.is_there(*over) == [False] * len(over)
    assert erased.kept == 1


def test_queries_go_by_when_they_were_asked(archive: Archive) -> None:
    fed = archive.fed
    grant = fed.deposit(expires_at=NOW + 60 * DAY)
    early, late = fed.query(fed.tutor, grant), fed.query(fed.tutor, grant)
    archive.asked(early, early)
    archive.now = NOW + 5 * DAY
    archive.asked(late)

    erased = archive.erase(NOW + 5 * DAY)

    assert erased.evidence == 2
    assert archive.erased() == [early.id]
    assert [envelope for _, envelope in archive.sql.ledger.evidence(0, 1_000)] == [late.raw]
    assert archive.is_there(grant) == [True]


def test_a_dry_run_tells_what_would_go_and_takes_nothing(archive: Archive) -> None:
    over = family(archive, expires_at=NOW + DAY)
    archive.asked(archive.fed.query(archive.fed.tutor, over[0]))
    archive.now = NOW + 10 * DAY
    size = archive.sql.ledger.size

    told = archive.erase(NOW + 5 * DAY, dry_run=True)

    assert archive.sql.ledger.size == size
    assert archive.is_there(*over) == [True] * len(over)
    done = archive.erase(NOW + 5 * DAY)
    assert (told.evidence, told.grants, told.statements) == (done.evidence, done.grants, done.statements)
    assert told.entries == 0
    assert done.entries == 3


def test_erasing_again_takes_nothing_and_writes_nothing(archive: Archive) -> None:
    family(archive, expires_at=NOW + DAY)
    archive.now = NOW + 10 * DAY
    archive.erase(NOW + 5 * DAY)
    size = archive.sql.ledger.size

    assert archive.erase(NOW + 5 * DAY) == Erased()
    assert archive.sql.ledger.size == size


def test_one_entry_names_as_many_as_it_may_and_the_next_one_the_rest(archive: Archive) -> None:
    fed = archive.fed
    grant = fed.deposit()
    archive.asked(*(fed.query(fed.tutor, grant) for _ in range(MOST_IDS + 1)))
    archive.now = NOW + 10 * DAY

    erased = archive.erase(NOW + 5 * DAY)

    assert (erased.evidence, erased.entries) == (MOST_IDS + 1, 2)
    assert len(archive.erased()) == MOST_IDS + 1


def test_another_process_finds_out_before_it_records_anything_by_the_old_facts(archive: Archive) -> None:
    fed, [grant, *_] = archive.fed, family(archive, expires_at=NOW + DAY)
    engine = open_engine(archive.sql.engine.url.render_as_string(hide_password=False))
    other = FactStore(engine, archive.sql.tables, archive.sql.ledger_tables)
    assert other.capability(grant.id) is not None
    late = other.draft(fed.endorsement(grant, fed.school, verdict=pb.ENDORSEMENT_VERDICT_SUSPENDED))
    archive.now = NOW + 10 * DAY
    archive.erase(NOW + 5 * DAY)

    with pytest.raises(UnavailableError):
        archive.sql.runner.run(archive.sql.ledger.append(late))
    assert other.catch_up()
    assert other.capability(grant.id) is None
    engine.dispose()


def test_two_that_erase_at_once_take_everything_once(archive: Archive) -> None:
    over = [each for _ in range(3) for each in family(archive, expires_at=NOW + DAY)]
    archive.now = NOW + 10 * DAY

    async def both() -> None:
        works = [archive.erasing().erase(NOW + 5 * DAY, rule=RULE) for _ in range(2)]
        await asyncio.gather(*works, return_exceptions=True)

    archive.sql.runner.run(both())
    with suppress(UnavailableError):
        archive.erase(NOW + 5 * DAY)

    assert sorted(archive.erased()) == sorted(each.id for each in over)


def test_an_auditor_is_told_what_is_no_more(archive: Archive) -> None:
    over = family(archive, expires_at=NOW + DAY)
    query = archive.fed.query(archive.fed.tutor, over[0])
    archive.asked(query)
    archive.now = NOW + 10 * DAY
    archive.erase(NOW + 5 * DAY)

    sql = archive.sql
    pages = LedgerPages(sql.ledger, sql.engine, sql.tables, sql.ledger_tables)
    found = [
        auditor_pb2.FetchStatementsResponse.FromString(each)
        for each in pages.statements_named(0, pages.size(), make_scope())
    ]

    erased = {identifier for each in found for identifier in each.erased}
    assert erased == {query.id, *(each.id for each in over)}
    given = {st.kind_of(envelope).name for each in found for envelope in each.statements}
    assert given == {"admission", "key-cert"}


def test_nothing_of_it_is_left_in_the_file(archive: Archive) -> None:
    url = make_url(str(archive.sql.engine.url))
    if url.get_backend_name() != "sqlite":
        pytest.skip("the files of a PostgreSQL server are its own")
    over = family(archive, expires_at=NOW + DAY)
    query = archive.fed.query(archive.fed.tutor, over[0])
    archive.asked(query)
    archive.now = NOW + 10 * DAY

    def files() -> bytes:
        folder = Path(str(url.database)).parent
        return b"".join(each.read_bytes() for each in folder.iterdir() if each.name.startswith("test.db"))

    signatures = [each.envelope.signatures[0].signature for each in (*over, query)]
    assert all(each in files() for each in signatures)
    archive.erase(NOW + 5 * DAY)

    assert not any(each in files() for each in signatures)
