"""Examining what was pulled: leaves become rows, and the statements that they name are fetched and verified.

Rules:

- A portion of leaves, the statements that they name, and how far the examination is are written in one transaction.
- What is wrong is noted and kept: verifying the bundle finds all of it again, and replay is told what it cannot use.
- Statements that the keeper says were erased are erased only once a leaf of the ledger says so.

Example::

    examination = Examination(client, bundle, "grand-bend", found, progress)
    await examination.run(ledger)
    examination.is_erasure_open(ledger)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from hashlib import sha256
from typing import Final

from google.protobuf.message import DecodeError

from permslip._pb.permslip.v1 import auditor_pb2, ledger_pb2, statement_pb2 as pb
from permslip.auditing.bundle import Bundle, LedgerRow
from permslip.auditing.codes import Code
from permslip.auditing.entry_rows import EntryRow, decode_entry, row_of
from permslip.auditing.finding import Findings
from permslip.auditing.results import Progress
from permslip.client.auditing import AsyncAuditorClient
from permslip.errors import MalformedError, PermslipError

__all__ = ["Examination"]

_PORTION: Final = 4_096


class Examination:
    """Examines the ledgers of one bundle.

    Args:
        client: asks for statements.
        bundle: where leaves have arrived.
        federation: the one that leaves must name.
        found: takes what is wrong.
        progress: told how far it is.
    """

    def __init__(
        self, client: AsyncAuditorClient, bundle: Bundle, federation: str, found: Findings, progress: Progress
    ) -> None:
        self._client, self._bundle, self._federation = client, bundle, federation
        self._found, self._progress = found, progress
        bundle.db.execute(
            "CREATE TEMP TABLE IF NOT EXISTS claimed"
            " (statement_id BLOB, ledger INTEGER, PRIMARY KEY (statement_id, ledger)) WITHOUT ROWID"
        )

    async def run(self, ledger: int) -> None:
        """Examine everything that has arrived of a ledger.

        Raises:
            RefusedError, UnavailableError: the keeper does not give statements.
            MalformedError: what arrived was damaged since.
        """
        while (portion := self._next(self._bundle.ledger(ledger))) is not None:
            await self._store(portion)
            row = portion.row
            self._progress(f"{row.name}: examining", portion.end, row.pulled)

    def is_erasure_open(self, ledger: int) -> bool:
        """Whether statements are said to be erased and no leaf so far says so: a later one must."""
        row = self._bundle.db.execute(
            "SELECT 1 FROM temp.claimed c WHERE c.ledger = ? AND NOT EXISTS"
            " (SELECT 1 FROM erased e WHERE e.statement_id = c.statement_id AND e.ledger = c.ledger)",
            (ledger,),
        ).fetchone()
        return row is not None

    def _next(self, row: LedgerRow) -> _Portion | None:
        """The next leaves that arrived; None when all were examined."""
        arrived = self._bundle.db.execute(
            "SELECT arrived, message FROM arrived WHERE ledger = ? ORDER BY arrived", (row.ledger,)
        )
        portion = _Portion(row, self._federation)
        for number, raw in arrived:
            try:
                message = auditor_pb2.FetchEntriesResponse.FromString(raw)
            except DecodeError:
                raise MalformedError("was damaged.", field="arrived", remedy="Fetch into a new bundle.") from None
            portion.take(message.entries, self._found)
            portion.messages.append((number,))
            if len(portion.rows) >= _PORTION:
                break
        arrived.close()
        return portion if portion.rows else None

    async def _store(self, portion: _Portion) -> None:
        """Write a portion, with the statements that it names."""
        bundle, row, found = self._bundle, portion.row, self._found
        with bundle.transaction() as db:
            bundle.add_entries(portion.rows)
            bundle.add_erased(portion.erased)
            if portion.names_statements:
                statements = self._client.statements(row.root, portion.start, portion.end)
                async with aclosing(statements) as messages:
                    async for message in messages:
                        found.count("statements", bundle.add_statements(message.statements))
                        for envelope, error in message.refused:
                            self._note_refused(envelope, error, portion)
                        claimed = [(each, row.ledger) for each in message.erased]
                        db.executemany("INSERT INTO temp.claimed VALUES (?, ?) ON CONFLICT DO NOTHING", claimed)
            db.executemany("DELETE FROM arrived WHERE arrived = ?", portion.messages)
            bundle.set_fetched(row.ledger, portion.end)
        found.count("entries", len(portion.rows))
        if portion.erased:
            found.count("erased", len(portion.erased))

    def _note_refused(self, envelope: pb.Envelope, error: PermslipError, portion: _Portion) -> None:
        identifier = self._bundle.add_refused(envelope)
        malformed = isinstance(error, MalformedError)
        code = Code.STATEMENT_MALFORMED if malformed else Code.STATEMENT_SIGNATURE
        ledger, position = portion.row.ledger, portion.position_of(identifier, envelope)
        self._found.add(code, error.message, ledger=ledger, position=position, statement=identifier)


class _Portion:
    """Leaves that become rows together."""

    def __init__(self, row: LedgerRow, federation: str) -> None:
        self.row, self._federation = row, federation
        self.start = self.end = row.fetched
        self.rows: list[EntryRow] = []
        self.erased: list[tuple[bytes, int, int, int, str]] = []
        self.messages: list[tuple[int]] = []
        self.names_statements = False

    def take(self, leaves: Sequence[ledger_pb2.LedgerLeaf], found: Findings) -> None:
        """Decode leaves, and note what is wrong with them."""
        self.rows += [self._row_of(each.position, each.leaf_hash, each.leaf, found) for each in leaves]
        self.end += len(leaves)

    def position_of(self, identifier: bytes, envelope: pb.Envelope) -> int | None:
        """Where the first entry stands that names a statement; a manifest is named by its envelope's digest."""
        digest = sha256(envelope.SerializeToString(deterministic=True)).digest()
        for row in self.rows:
            if identifier in (row.statement_id, row.query_id) or digest == row.manifest_sha256:
                return row.position
        return None

    def _row_of(self, position: int, digest: bytes, leaf: bytes, found: Findings) -> EntryRow:
        number = self.row.ledger
        if not leaf:
            found.count("hidden")
            return EntryRow(number, position, digest)
        try:
            entry = decode_entry(leaf)
        except MalformedError as error:
            found.add(Code.LEAF_MALFORMED, error.message, ledger=number, position=position)
            return EntryRow(number, position, digest, leaf)
        if entry.ledger != self.row.root or entry.federation != self._federation:
            found.add(Code.LEDGER_LABEL, "it names another ledger.", ledger=number, position=position)
        row = row_of(entry, number, position, digest, leaf)
        if row.event == "statements_erased":
            told = entry.statements_erased
            self.erased += [
                (each, number, position, entry.recorded_at, told.retention_rule) for each in told.statement_ids
            ]
        elif row.query_id is not None or row.statement_id is not None:
            self.names_statements = True
        return row
