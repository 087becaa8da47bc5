"""The tables of a node, for SQLite and PostgreSQL alike.

Beside the ledger (:mod:`permslip.hosting.schema`) and the recorded statements (:mod:`permslip.hosting.facts_schema`):

=================  =============================================================================================
``learner``        handle ↔ the source's own id; quorum rule, visibility, majority
``person``         guardians as the source names them
``family``         who is whose guardian, as the source says it; suspended, removed
``person_key``     the keys that a person linked for a learner by slip
``slip``           printed slips: selector, secret, tries
``page``           whole records, pre-encoded and packed: (handle, section, page_no) → a serialized ``SlicePart``
``record_index``   (handle, section, record_id) → version, digest of the source's content, page
``record_old``     versions of records that newer ones replaced
``import_run``     how far an interrupted import came
``import_report``  what each finished import read, stored and left out
``broker_state``   broker root → greatest number up to which every push is held; what must not become less
``outgoing``       statements that a broker has not confirmed yet
``use_count``      grant or delegation → uses debited
``charged_query``  queries under grants that are limited in uses: what each cost, and whether any byte left
``instance``       one row: up to which ledger size the running node has noticed what other processes appended
``veto``           (handle, grantee, person): a guardian revoked what this grantee held
``witnessed``      broker root → the last checkpoint of its ledger that this node cosigned
``witness_alert``  checkpoints that it refused, each with the one that it contradicts
=================  =============================================================================================

Rules:

- ``page`` is clustered by its key (``WITHOUT ROWID`` on SQLite): one slice is one stretch of the file.
- Nothing refers to another table by a foreign key: the ledger's writer inserts in its own order.
- A secret stands in ``slip`` in clear. The database file is ``0600`` and holds every learner's records in clear;
  sealing ten bytes of it under a key that lies beside it would protect nothing. It is erased when the slip has ended.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)

from permslip.hosting.facts_schema import fact_tables
from permslip.hosting.schema import ledger_tables

__all__ = [
    "FACTS",
    "LEDGER",
    "METADATA",
    "broker_state",
    "charged_query",
    "family",
    "import_report",
    "import_run",
    "instance",
    "learner",
    "outgoing",
    "page",
    "person",
    "person_key",
    "record_index",
    "record_old",
    "slip",
    "use_count",
    "veto",
    "witness_alert",
    "witnessed",
]

METADATA: Final = MetaData()
LEDGER: Final = ledger_tables(METADATA)
FACTS: Final = fact_tables(METADATA)

_INT64: Final = BigInteger().with_variant(Integer(), "sqlite")


def _number(name: str) -> Column[int]:
    return Column(name, _INT64, nullable=False, server_default="0")


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


def _key(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, primary_key=True)


learner: Final = Table(
    "learner",
    METADATA,
    _key("handle"),
    Column("native_id", Text, nullable=False, unique=True),
    _text("display_name"),
    # Empty: the node's own rule.
    Column("quorum_rule", String(32), nullable=False, server_default=""),
    # Do guardians learn of one another?
    Column("guardians_visible", Boolean, nullable=False, server_default="1"),
    # UTC milliseconds; 0 is unknown.
    _number("majority_at"),
    # When to look whether authority has passed; NULL: it need not be looked at.
    Column("majority_due", _INT64),
    # The operator's word, which no import changes.
    Column("majority_by_hand", Boolean, nullable=False, server_default=false()),
    # The ledger says that authority has passed to the learner.
    Column("majority_in_force", Boolean, nullable=False, server_default=false()),
    _number("created_at"),
    Index("learner_majority", "majority_due"),
)

person: Final = Table(
    "person",
    METADATA,
    Column("person_id", Text, primary_key=True),
    _text("display_name"),
    _text("first_name"),
    _text("last_name"),
)

family: Final = Table(
    "family",
    METADATA,
    _key("handle"),
    Column("person_id", Text, primary_key=True),
    _text("relation"),
    # NULL: the source does not say.
    Column("lives_with", Boolean),
    Column("primary_contact", Boolean),
    Column("emergency_contact", Boolean),
    Column("legal_guardian", Boolean),
    _text("contact_restrictions"),
    _text("contact_priority"),
    # The learner herself.
    Column("is_learner", Boolean, nullable=False, server_default="0"),
    # UTC milliseconds; 0: not. Set by the operator alone, never by an import.
    _number("suspended_at"),
    _number("removed_at"),
    # For salted hashes of this person in the ledger.
    Column("salt", LargeBinary, nullable=False),
    Index("family_person", "person_id"),
    sqlite_with_rowid=False,
)

person_key: Final = Table(
    "person_key",
    METADATA,
    _key("handle"),
    _key("key"),
    Column("person_id", Text, nullable=False),
    Column("sealing_key", LargeBinary, nullable=False),
    _number("linked_at"),
    # UTC milliseconds; 0: in use.
    _number("retired_at"),
    sqlite_with_rowid=False,
)

slip: Final = Table(
    "slip",
    METADATA,
    _key("selector"),
    # NULL once erased.
    Column("secret", LargeBinary),
    Column("handle", LargeBinary, nullable=False),
    Column("person_id", Text, nullable=False),
    _number("issued_at"),
    _number("expires_at"),
    _number("tries"),
    Column("used_by", LargeBinary),
    _number("used_at"),
    Index("slip_family", "handle", "person_id"),
)

page: Final = Table(
    "page",
    METADATA,
    _key("handle"),
    Column("section", String(96), primary_key=True),
    Column("page_no", Integer, primary_key=True, autoincrement=False),
    # Days observed, YYYY-MM-DD, of those records that have one; empty where none has.
    Column("first_on", String(10), nullable=False),
    Column("last_on", String(10), nullable=False),
    Column("undated", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("records", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

record_index: Final = Table(
    "record_index",
    METADATA,
    _key("handle"),
    Column("section", String(96), primary_key=True),
    _key("record_id"),
    Column("version", Integer, nullable=False),
    # BLAKE2b-128 of the content as the importer gave it.
    Column("digest", LargeBinary, nullable=False),
    Column("page_no", Integer, nullable=False),
    sqlite_with_rowid=False,
)

record_old: Final = Table(
    "record_old",
    METADATA,
    _key("handle"),
    Column("section", String(96), primary_key=True),
    _key("record_id"),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("record", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

import_run: Final = Table(
    "import_run",
    METADATA,
    _key("run"),
    _number("position"),
)

import_report: Final = Table(
    "import_report",
    METADATA,
    Column("number", Integer, primary_key=True),
    _number("finished_at"),
    # The import's report as JSON: rows read, records, rejects, entities that no importer maps.
    _text("document"),
)

broker_state: Final = Table(
    "broker_state",
    METADATA,
    _key("broker"),
    _number("pushes_held"),
    # The highest number among the certificates that it has shown.
    _number("cert_seq"),
    # Of its ledger, as of the last push: more may have been seen since.
    _number("ledger_size"),
    # The push numbered pushes_held: id of its statement, and its position in the broker's ledger. NULL: not noted.
    Column("last_push", LargeBinary),
    _number("last_position"),
)

outgoing: Final = Table(
    "outgoing",
    METADATA,
    _key("broker"),
    _key("statement_id"),
    # Of the ledger entry that recorded it: they are sent in this order.
    _number("position"),
    Column("envelope", LargeBinary, nullable=False),
    Index("outgoing_order", "broker", "position"),
)

use_count: Final = Table(
    "use_count",
    METADATA,
    _key("subject"),
    _number("uses"),
    sqlite_with_rowid=False,
)

charged_query: Final = Table(
    "charged_query",
    METADATA,
    _key("query_id"),
    # The first of its pages and resumes: they are one use.
    Column("first_id", LargeBinary, nullable=False),
    Column("grant_id", LargeBinary, nullable=False),
    Column("requester", LargeBinary, nullable=False),
    # SHA-256 of the sections, dates and delegations asked for.
    Column("scope", LargeBinary, nullable=False),
    # When its use began: that of the first of its pages and resumes.
    _number("decided_at"),
    # Reason of its end; 0 while it is being answered.
    _number("ended"),
    # Sealed bytes that may have left; -1: unknown, after a crash.
    _number("released"),
    # A query that retries or resumes it was let off.
    Column("retried", Boolean, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

instance: Final = Table(
    "instance",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    _number("noticed"),
)

veto: Final = Table(
    "veto",
    METADATA,
    _key("handle"),
    _key("grantee"),
    Column("person_id", Text, primary_key=True),
    _number("revoked_at"),
    sqlite_with_rowid=False,
)

witnessed: Final = Table(
    "witnessed",
    METADATA,
    _key("broker"),
    _text("origin"),
    _number("size"),
    Column("root", LargeBinary, nullable=False),
    # As it was offered, signed by the broker.
    Column("note", LargeBinary, nullable=False),
    _number("cosigned_at"),
)

witness_alert: Final = Table(
    "witness_alert",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("broker", LargeBinary, nullable=False),
    # A WitnessFault of the contract.
    _number("fault"),
    _number("refused_at"),
    # Of the entry in this node's ledger.
    _number("position"),
    Column("seen", LargeBinary, nullable=False),
    Column("offered", LargeBinary, nullable=False),
    _text("detail"),
)
