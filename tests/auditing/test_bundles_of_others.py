"""Bundles that somebody else made: nothing in them acts by itself, and no column holds what it does not say."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from permslip.auditing.bundle import Bundle
from permslip.errors import MalformedError
from tests.auditing.conftest import Scene
from tests.auditing.signed_bundles import signed_bundle


@pytest.fixture
def path(scene: Scene, tmp_path: Path) -> Path:
    """A whole bundle."""
    scene.fed.consent(scene.mother, scene.school, scene.tutor)
    signed_bundle(scene.fed, tmp_path / "audit.db").close()
    return tmp_path / "audit.db"


def alter(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    for each in statements:
        db.execute(each)
    db.close()


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TRIGGER quiet AFTER INSERT ON finding BEGIN DELETE FROM finding; END",),
        ("CREATE TABLE mine (a); ", "CREATE TRIGGER other AFTER INSERT ON mine BEGIN DELETE FROM finding; END"),
        (
            "ALTER TABLE entry RENAME TO entries",
            "CREATE VIEW entry AS SELECT * FROM entries WHERE (SELECT count(*) FROM run) = 0",
        ),
        ("DROP VIEW accesses_by_provider", "CREATE VIEW accesses_by_provider AS SELECT 'nobody' AS requester_name"),
        ("DROP TABLE erased",),
        ("DROP INDEX entry_query", "CREATE INDEX entry_query ON entry (query_id) WHERE query_id IS NULL"),
        ("CREATE UNIQUE INDEX once ON finding (step)",),
        (
            "DROP TABLE meta",
            "CREATE TABLE meta (name, value)",
            "INSERT INTO meta VALUES ('format', 'permslip-audit-bundle/1')",
        ),
    ],
    ids=["trigger", "trigger-elsewhere", "view-for-table", "other-view", "no-table", "other-index", "index", "loose"],
)
def test_a_file_whose_tables_are_not_those_of_a_bundle_is_not_opened(path: Path, statements: tuple[str, ...]) -> None:
    alter(path, *statements)

    with pytest.raises(MalformedError):
        Bundle.open(path)


def test_tables_and_views_that_other_tools_added_stay(path: Path) -> None:
    alter(path, "CREATE TABLE notes (text)", "CREATE INDEX notes_text ON notes (text)", "CREATE VIEW seen AS SELECT 1")

    Bundle.open(path).close()


def test_a_column_takes_nothing_but_its_own_type(path: Path) -> None:
    with Bundle.open(path) as bundle, pytest.raises(sqlite3.IntegrityError):
        bundle.db.execute("UPDATE statement SET envelope = 'text'")
