"""``permslip audit`` as an auditor types it, against a broker and a school that are processes of their own."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.armor import write_statements
from permslip.cli import main
from permslip.keyfile import PrincipalKind, StoredKeys, write_key_file
from permslip.keys import did_text
from tests.federation.district import District
from tests.federation.principals import Organization
from tests.federation.processes import now

pytestmark = pytest.mark.e2e


class Auditing:
    """A district in which something happened, and an auditor's settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.district = District(folder / "district")

    def begin(self) -> None:
        """Accesses, a revocation, and the auditor's admission."""
        district = self.district
        self.auditor = Organization.new("State Auditor", pb.PRINCIPAL_KIND_AUDITOR, district.federation, now=now())
        district.processes.admit([self.auditor])
        keys = StoredKeys(PrincipalKind.AUDITOR, self.auditor.key, self.auditor.sealing)
        write_key_file(self.folder / "auditor.key", keys)
        write_statements(self.folder / "auditor.cert", [self.auditor.cert.envelope])
        settings = {
            "broker": district.address,
            "broker_root": did_text(district.root),
            "federation": district.federation,
            "operator": did_text(district.processes.operator.public),
            "key": "auditor.key",
            "cert": "auditor.cert",
        }
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        self.config = self.folder / "auditor.toml"
        self.config.write_text("\n".join(lines), encoding="utf-8")
        asyncio.run(self.use())

    async def use(self) -> None:
        """A consent at both schools, profiles by it, its end at one of them."""
        district = self.district
        grants = await district.consent(*district.schools)
        async with district.client() as client:
            for _ in range(3):
                await client.profile(grants[0].id)
            await district.revoke(district.revocation(grants[0]))
            await client.profile(grants[1].id)

    def run(self, command: str, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
        """A command with ``--json``: its exit code and its document."""
        given = ["audit", "--config", str(self.config), command, *map(str, arguments), "--json"]
        result = CliRunner().invoke(main, given)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, json.loads(result.stdout or result.stderr)


@pytest.fixture(scope="module")
def auditing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Auditing]:
    made = Auditing(tmp_path_factory.mktemp("auditing"))
    with made.district:
        made.begin()
        yield made


@pytest.fixture(scope="module")
def bundle(auditing: Auditing) -> Path:
    """All three ledgers, fetched."""
    path = auditing.folder / "audit.db"
    code, told = auditing.run("fetch", path)
    assert (code, told["result"], told["counts"]["ledgers"]) == (0, "clean", 3), told
    return path


@pytest.mark.parametrize("step", ["verify", "replay", "reconcile"])
def test_ledgers_of_real_processes_are_clean(auditing: Auditing, bundle: Path, step: str) -> None:
    code, told = auditing.run(step, bundle)

    assert (code, told["result"], told["faults"]) == (0, "clean", 0), told


def test_the_bundle_holds_what_the_nodes_alone_know(bundle: Path) -> None:
    with closing(sqlite3.connect(bundle)) as db:
        kinds = dict(db.execute("SELECT kind, count(*) FROM statement GROUP BY kind"))
        ledgers = db.execute("SELECT ledger, kind, fetched = head_size FROM ledger ORDER BY ledger").fetchall()

    assert ledgers == [(1, "broker", 1), (2, "node", 1), (3, "node", 1)]
    assert kinds["manifest"] >= 3
    assert kinds["query"] >= 3


def test_the_bundle_is_for_its_owner_alone(bundle: Path) -> None:
    assert bundle.stat().st_mode & 0o777 == 0o600


def test_a_fetch_that_was_killed_goes_on_where_it_was(auditing: Auditing, bundle: Path) -> None:
    path = auditing.folder / "killed.db"
    command = [sys.executable, "-m", "permslip", "audit", "--config", str(auditing.config), "fetch", str(path)]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not path.exists() or not has_entries(path):
        assert killed.poll() in {None, 0}
    killed.kill()
    killed.wait()

    code, told = auditing.run("fetch", path)

    assert (code, told["result"]) == (0, "clean")
    assert auditing.run("verify", path)[0] == 0
    with closing(sqlite3.connect(path)) as db:
        [[orphans]] = db.execute(
            "SELECT count(*) FROM entry e LEFT JOIN ledger l USING (ledger) WHERE l.ledger IS NULL"
        )
        [[entries]] = db.execute("SELECT count(*) FROM entry")
        [[fetched]] = db.execute("SELECT sum(fetched) FROM ledger")
    assert (orphans, entries) == (0, fetched)


def has_entries(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=20)) as db:
        try:
            return bool(db.execute("SELECT count(*) FROM entry").fetchone()[0])
        except sqlite3.OperationalError:
            return False


def test_an_altered_bundle_is_told_with_the_position(auditing: Auditing, bundle: Path) -> None:
    path = auditing.folder / "altered.db"
    shutil.copy(bundle, path)
    with closing(sqlite3.connect(path)) as db:
        [[leaf]] = db.execute("SELECT leaf FROM entry WHERE ledger = 1 AND position = 7")
        altered = leaf[:-1] + bytes([leaf[-1] ^ 1])
        db.execute("UPDATE entry SET leaf = ? WHERE ledger = 1 AND position = 7", (altered,))
        db.commit()

    code, told = auditing.run("verify", path)

    assert code == 1, told
    assert {(each["code"], each["position"]) for each in told["listed"]} >= {("LEAF_HASH", 7)}


def test_other_keys_than_those_of_the_bundle_leave_it_unchecked(auditing: Auditing, bundle: Path) -> None:
    given = ["audit", "--config", str(auditing.config), "--operator", did_text(auditing.district.root), "verify"]
    result = CliRunner().invoke(main, [*given, str(bundle), "--json"])

    assert result.exit_code == 2
    assert json.loads(result.stderr)["error"] == "ConfigurationError"


def test_a_school_that_is_away_is_told_and_the_rest_is_fetched(auditing: Auditing) -> None:
    path = auditing.folder / "away.db"
    platform = auditing.district.platform
    platform.end()
    asyncio.run(auditing.district.until_detached(platform))
    try:
        code, told = auditing.run("fetch", path)
    finally:
        platform.start()
        asyncio.run(platform.until_ready())

    assert (code, told["result"], told["faults"]) == (2, "unchecked", 0)
    assert told["findings"] == {"LEDGER_UNREACHED": 1}
    assert told["counts"]["ledgers"] == 2


def test_what_is_no_bundle_is_unchecked(auditing: Auditing) -> None:
    code, told = auditing.run("verify", auditing.config)

    assert (code, told["error"]) == (2, "ConfigurationError")


def test_a_watch_looks_at_what_comes_until_it_is_asked_to_end(auditing: Auditing) -> None:
    path = auditing.folder / "watched.db"
    assert auditing.run("watch", path, "--once")[0] == 0
    before = replayed_in(path)
    command = [
        sys.executable,
        "-m",
        "permslip",
        "audit",
        "--config",
        str(auditing.config),
        "watch",
        str(path),
        "--json",
    ]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        asyncio.run(auditing.use())
        while replayed_in(path) <= before:
            assert watch.poll() is None
    finally:
        watch.terminate()
    told, errors = watch.communicate(timeout=60)

    assert (watch.returncode, errors) == (0, "")
    (result,) = (json.loads(line) for line in told.splitlines())
    assert (result["step"], result["result"]) == ("watch", "clean")
    assert auditing.run("verify", path)[0] == 0


def test_watching_once_is_a_fetch_and_a_replay(auditing: Auditing, bundle: Path) -> None:
    code, told = auditing.run("watch", auditing.folder / "once.db", "--once")

    assert (code, told["result"]) == (0, "clean"), told
    assert told["counts"]["decisions"] > 0


def replayed_in(path: Path) -> int:
    """Decisions that were replayed, so far."""
    with closing(sqlite3.connect(path, timeout=20)) as db:
        row = db.execute("SELECT counts FROM run WHERE step = 'replay'").fetchone()
    return 0 if row is None else int(json.loads(row[0])["decisions"])
