"""What a node holds, counted: for its operator, never for the network.

Example::

    holdings = read_holdings(engine)
    holdings.sections["transcript.grades"]      # 13440
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select

from permslip.hosting.database import reading, writing
from permslip.quantities import Millis
from permslip_node import schema
from permslip_node.importing import ImportReport

__all__ = ["FamilyLine", "Holdings", "keep_import_report", "list_families", "list_learners", "read_holdings"]


@dataclass(slots=True)
class Holdings:
    """Counts of what is held.

    Attributes:
        learners: with a handle.
        learners_with_records: of those, with at least one record.
        guardians: persons linked to a learner by the source.
        guardian_links: links between a person and a learner.
        linked_keys: keys in use that a slip linked.
        sections: section → records held, newest versions alone.
        older_versions: records that a newer import replaced.
        unmapped: source entity → rows that no importer maps, over all imports.
        rejected: rows that could not be read, over all imports.
        ledger_entries: entries of the node's own ledger.
    """

    learners: int = 0
    learners_with_records: int = 0
    guardians: int = 0
    guardian_links: int = 0
    linked_keys: int = 0
    sections: dict[str, int] = field(default_factory=dict)
    older_versions: int = 0
    unmapped: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    ledger_entries: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FamilyLine:
    """One person as to one learner, as the roster has it.

    Attributes:
        learner, learner_name: the source's id, and the name.
        person, person_name, relation: likewise.
        keys: how many keys of hers are in use.
        suspended, removed: by the operator.
        majority: day on which the learner comes of age, YYYY-MM-DD; empty when unknown.
    """

    learner: str
    learner_name: str
    person: str
    person_name: str
    relation: str
    keys: int
    suspended: bool
    removed: bool
    majority: str

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def read_holdings(engine: Engine) -> Holdings:
    """Count what the node holds, as of one moment."""
    page, family = schema.page.c, schema.family.c
    with reading(engine) as connection:
        sections = connection.execute(
            select(page.section, func.sum(page.count)).group_by(page.section).order_by(page.section)
        )
        holdings = Holdings(
            learners=_count(connection, select(func.count()).select_from(schema.learner)),
            learners_with_records=_count(connection, select(func.count(page.handle.distinct()))),
            guardians=_count(
                connection, select(func.count(family.person_id.distinct())).where(family.is_learner.is_(False))
            ),
            guardian_links=_count(
                connection,
                select(func.count()).select_from(schema.family).where(family.is_learner.is_(False)),
            ),
            linked_keys=_count(
                connection,
                select(func.count()).select_from(schema.person_key).where(schema.person_key.c.retired_at == 0),
            ),
            sections={row[0]: int(row[1]) for row in sections},
            older_versions=_count(connection, select(func.count()).select_from(schema.record_old)),
            ledger_entries=_count(connection, select(func.count()).select_from(schema.LEDGER.leaf)),
        )
        for document in connection.execute(select(schema.import_report.c.document)).scalars():
            report = json.loads(document)
            holdings.rejected += report["rejected"]
            for entity, rows in report["unmapped"].items():
                # The same file imported again says the same again.
                holdings.unmapped[entity] = max(rows, holdings.unmapped.get(entity, 0))
    return holdings


def keep_import_report(engine: Engine, report: ImportReport, *, now: Millis) -> None:
    """Keep the report of a finished import, for :func:`read_holdings`."""
    document = json.dumps(report.to_dict(), ensure_ascii=False, sort_keys=True)
    with writing(engine) as connection:
        connection.execute(insert(schema.import_report).values(finished_at=now, document=document))


def list_families(engine: Engine, learner: str | None = None) -> Iterator[FamilyLine]:
    """Everybody whom the source or the operator links to a learner, ordered by learner and person.

    Args:
        engine: the node's database.
        learner: the source's id of one learner; None: of all.
    """
    one, family, person, key = schema.learner.c, schema.family.c, schema.person.c, schema.person_key.c
    keys = (
        select(func.count())
        .select_from(schema.person_key)
        .where(key.handle == family.handle, key.person_id == family.person_id, key.retired_at == 0)
        .scalar_subquery()
    )
    query = (
        select(
            one.native_id,
            one.display_name.label("learner_name"),
            one.majority_at,
            family.person_id,
            person.display_name.label("person_name"),
            family.relation,
            family.suspended_at,
            family.removed_at,
            keys.label("keys"),
        )
        .join(schema.family, family.handle == one.handle)
        .outerjoin(schema.person, person.person_id == family.person_id)
        .order_by(one.native_id, family.person_id)
    )
    if learner is not None:
        query = query.where(one.native_id == learner)
    with reading(engine) as connection:
        for row in connection.execution_options(yield_per=500).execute(query):
            yield FamilyLine(
                learner=row.native_id,
                learner_name=row.learner_name or row.native_id,
                person=row.person_id,
                person_name=row.person_name or row.learner_name or row.person_id,
                relation=row.relation,
                keys=row.keys,
                suspended=bool(row.suspended_at),
                removed=bool(row.removed_at),
                majority=_day(row.majority_at),
            )


def list_learners(engine: Engine) -> list[str]:
    """The source's ids of all learners, ascending."""
    one = schema.learner.c
    with reading(engine) as connection:
        return list(connection.execute(select(one.native_id).order_by(one.native_id)).scalars())


def _day(millis: int) -> str:
    return datetime.fromtimestamp(millis // 1_000, UTC).date().isoformat() if millis else ""


def _count(connection: Connection, query: Any) -> int:
    return int(connection.execute(query).scalar_one())
