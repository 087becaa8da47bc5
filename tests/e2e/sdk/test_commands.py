"""The commands of parents and providers, against a real broker and real schools."""

from __future__ import annotations

import asyncio
import csv
import json
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from permslip.armor import read_statements
from permslip.cli import main
from permslip.directory import Organization
from permslip.keys import SigningKey
from tests.e2e.sdk.three_schools import CHILD, ThreeSchools

pytestmark = pytest.mark.e2e

TERMS = ["--section", "transcript", "--section", "personal.attendance", "--purpose", "tutoring", "--purpose-text"]
TERMS += ["Help with reading", "--until", "2027-06-30", "--reference", "learner-17"]


@dataclass
class Done:
    """What a command left behind."""

    code: int
    output: str
    errors: str

    @property
    def document(self) -> Any:
        return json.loads(self.output)


@dataclass
class Desk:
    """Types commands, with the settings of one folder."""

    schools: ThreeSchools
    config: Path

    async def type(self, group: str, *words: str, stdin: str = "") -> Done:
        """One command, as a process of its own."""
        arguments = [group, "--config", str(self.config), *words]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "permslip",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate(stdin.encode())
        assert process.returncode is not None
        assert b"Traceback" not in errors, errors.decode()
        return Done(process.returncode, output.decode(), errors.decode())

    async def operate(self, *words: str, key: str = "operator.key") -> Done:
        """One command of the operator."""
        return await self.type("operator", "--key", str(self.config.with_name(key)), *words)

    async def organizations(self) -> list[Organization]:
        async with self.schools.operator() as operator:
            return await operator.organizations()

    async def link(self, *names: str) -> None:
        for name in names:
            slip = (await self.schools.school(name)).slip(CHILD).slip.text()
            done = await self.type("guardian", "link", "--learner", "Mia", stdin=slip)
            assert done.code == 0, done.errors

    async def grant(self, *more: str) -> Any:
        done = await self.type("guardian", "grant", "Tutors", *TERMS, *more, "--yes", "--json")
        assert done.code == 0, done.errors
        return done.document


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with ThreeSchools.running(tmp_path) as schools:
        yield Desk(schools, schools.settings_file())


async def test_the_straight_line_in_commands(desk: Desk, tmp_path: Path) -> None:
    # link
    slip_file = tmp_path / "slip.txt"
    slip_file.write_text((await desk.schools.school("Lincoln")).slip(CHILD).slip.text() + "\n")
    linked = await desk.type("guardian", "link", "--slip-file", str(slip_file), "--learner", "Mia", "--json")
    assert (linked.code, linked.document["node_name"], linked.document["learner"]) == (0, "Lincoln", "Mia")

    # grant, after the words were shown and confirmed
    asked = await desk.type("guardian", "grant", "Tutors", *TERMS, stdin="y\n")
    assert asked.code == 0, asked.errors
    assert "You allow Tutors to read what Lincoln keeps about your child." in asked.output
    assert "Lincoln: confirmed by the school" in asked.output

    # the tutor reads
    grants = await desk.type("provider", "grants")
    assert "learner-17" in grants.output
    profile = await desk.type("provider", "profile", "learner-17", "--json", "--svg", str(tmp_path / "p.svg"))
    assert profile.code == 0
    assert len(profile.document["sections"]["personal.attendance"]) == 7
    assert (tmp_path / "p.svg").read_text().startswith("<svg")

    # the mother watches
    accesses = await desk.type("guardian", "accesses", "--json")
    assert {each["requester_name"] for each in accesses.document["accesses"]} == {"Tutors"}
    own = await desk.type("guardian", "profile")
    assert "personal.attendance" in own.output

    # and revokes
    grant_id = (await desk.type("guardian", "grants", "--json")).document[0]["grant_id"]
    revoked = await desk.type("guardian", "revoke", grant_id)
    assert (revoked.code, "1 of 1 place confirmed." in revoked.output.splitlines()) == (0, True)
    refused = await desk.type("provider", "profile", "learner-17")
    assert "GRANT_REVOKED: Ask the parent for a new consent" in refused.output
    cut = await desk.type("provider", "records", "learner-17")
    assert (cut.code, "[GRANT_REVOKED]" in cut.errors) == (4, True)


async def test_nothing_is_signed_when_the_parent_says_no(desk: Desk) -> None:
    await desk.link("Lincoln")

    done = await desk.type("guardian", "grant", "Tutors", *TERMS, stdin="n\n")

    assert (done.code, "Nothing was signed." in done.errors) == (1, True)
    assert (await desk.type("guardian", "grants", "--json")).document == []


async def test_the_words_that_were_signed_can_be_read_again_without_network(desk: Desk) -> None:
    await desk.link("Lincoln")
    consent = await desk.grant("--language", "es")

    shown = await desk.type("guardian", "notice", consent["consent_id"], "--json")
    unknown = await desk.type("guardian", "notice", "00")

    assert "Usted permite a Tutors leer lo que Lincoln guarda" in shown.document[0]["notice"]
    assert unknown.code == 1


async def test_records_are_streamed_as_lines(desk: Desk) -> None:
    await desk.link("Lincoln")
    await desk.grant()

    lines = await desk.type("provider", "records", "learner-17", "--section", "personal.attendance", "--json")
    text = await desk.type("provider", "records", "learner-17", "--section", "personal.attendance")

    assert [json.loads(line)["section"] for line in lines.output.splitlines()] == ["personal.attendance"] * 7
    assert "Lincoln  personal.attendance  value=B, event=In Attendance" in text.output


async def test_values_are_exported_as_csv_for_their_owner_alone(desk: Desk, tmp_path: Path) -> None:
    await desk.link("Lincoln")
    await desk.grant()
    out = tmp_path / "values.csv"

    written = await desk.type("provider", "frame", "learner-17", "--section", "personal.attendance", "--out", str(out))
    printed = await desk.type("provider", "frame", "learner-17", "--section", "personal.attendance")

    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert written.code == 0
    assert {row["node_name"] for row in rows} == {"Lincoln"}
    assert {row["name"] for row in rows} == {"value", "event"}
    assert printed.output == out.read_text()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


async def test_an_export_without_values_says_why(desk: Desk) -> None:
    await desk.link("Lincoln")
    consent = await desk.grant()
    await desk.type("guardian", "revoke", consent["consent_id"])

    done = await desk.type("provider", "frame", "learner-17", "--section", "personal.attendance")

    assert len(done.output.splitlines()) == 1
    assert "personal.attendance  denied  GRANT_REVOKED" in done.errors


async def test_a_consent_s_last_day_is_the_one_that_was_given(desk: Desk) -> None:
    await desk.link("Lincoln")
    await desk.grant()

    for party in ("guardian", "provider"):
        assert TERMS[TERMS.index("--until") + 1] in (await desk.type(party, "grants")).output


async def test_two_consents_at_one_school_end_at_one_place(desk: Desk) -> None:
    await desk.link("Lincoln", "Birch")
    ids = [(await desk.grant())["consent_id"] for _ in range(2)]

    done = await desk.type("guardian", "revoke", *ids)

    assert "2 of 2 places confirmed." in done.output.splitlines()


async def test_a_school_that_is_offline_makes_exit_code_3(desk: Desk) -> None:
    await desk.link("Lincoln", "Birch")
    consent = await desk.grant()
    await desk.schools.stop("Birch")

    profile = await desk.type("provider", "profile", "learner-17")
    pending = await desk.type("guardian", "grant", "Clinic", *TERMS, "--wait", "0.5", "--yes")

    assert (profile.code, "UNREACHABLE" in profile.output) == (3, True)
    assert (pending.code, "waits for the school" in pending.output) == (3, True)
    assert consent["active"]


async def test_a_school_that_does_not_confirm_makes_exit_code_4(desk: Desk) -> None:
    await desk.link("Cedar")

    done = await desk.type("guardian", "grant", "Tutors", *TERMS, "--yes")

    assert (done.code, "QUORUM_NOT_MET" in done.output) == (4, True)


async def test_a_revocation_is_written_to_be_carried_to_the_school(desk: Desk, tmp_path: Path) -> None:
    await desk.link("Lincoln")
    consent = await desk.grant()

    done = await desk.type("guardian", "revoke", consent["consent_id"], "--file", str(tmp_path / "r.txt"), "--json")

    assert (done.code, done.document["revocations"]) == (0, 1)
    assert len(read_statements(tmp_path / "r.txt")) == 1


async def test_a_slip_is_read_from_standard_input_and_never_from_an_argument(desk: Desk) -> None:
    slip = (await desk.schools.school("Lincoln")).slip(CHILD).slip.text()

    as_argument = await desk.type("guardian", "link", slip)
    from_stdin = await desk.type("guardian", "link", "--slip-file", "-", stdin=slip)

    assert as_argument.code == 2
    assert from_stdin.code == 0


async def test_a_wallets_key_is_protected_when_asked_for(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "passphrase").write_text("correct horse\n")
    monkeypatch.setenv("PERMSLIP_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    slip = (await desk.schools.school("Lincoln")).slip(CHILD).slip.text()

    linked = await desk.type("guardian", "link", "--protect", stdin=slip)
    monkeypatch.delenv("PERMSLIP_PASSPHRASE_FILE")
    (tmp_path / "passphrase").write_text("wrong\n")
    monkeypatch.setenv("PERMSLIP_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    refused = await desk.type("guardian", "grants")

    assert linked.code == 0, linked.errors
    assert (refused.code, "passphrase is wrong" in refused.errors) == (1, True)


async def test_an_error_is_json_where_json_was_asked_for(desk: Desk) -> None:
    done = await desk.type("provider", "profile", "nobody", "--json")

    told = json.loads(done.errors)
    assert (done.code, told["code"]) == (4, "GRANT_UNKNOWN")
    assert told["remedy"]


def test_a_missing_setting_is_named_with_the_ways_to_give_it(tmp_path: Path) -> None:
    (tmp_path / "permslip.toml").write_text('federation = "fed.test"\n')

    result = CliRunner().invoke(main, ["provider", "--config", str(tmp_path / "permslip.toml"), "grants"])

    assert result.exit_code == 1
    assert "broker: is not set. Give --broker, set PERMSLIP_BROKER, or write it in permslip.toml." in result.stderr


async def test_whom_nobody_admitted_cannot_be_suspended(desk: Desk) -> None:
    stranger = SigningKey.generate().public.did
    tutor = next(each for each in await desk.organizations() if each.kind_name == "provider")

    unknown = await desk.operate("suspend", stranger)
    known = await desk.operate("suspend", tutor.did)

    assert (unknown.code, "nothing to suspend" in unknown.errors) == (1, True)
    assert (known.code, known.output.splitlines()) == (0, [f"suspended {tutor.name}", tutor.did])


async def test_a_provider_is_not_made_a_node_by_a_slip_of_the_operator(desk: Desk) -> None:
    tutor = next(each for each in await desk.organizations() if each.kind_name == "provider")

    done = await desk.operate("admit", tutor.did, "--kind", "node", "--name", tutor.name, "--agreement", "NDPA-1")

    assert (done.code, f"admitted already, as the provider {tutor.name!r}" in done.errors) == (1, True)
    assert tutor in await desk.organizations()


async def test_another_s_key_is_not_taken_for_the_operator_s(desk: Desk) -> None:
    done = await desk.operate("status", key="tutor.key")

    assert (done.code, "expected the key of the federation's operator, got that of a provider" in done.errors) == (
        1,
        True,
    )
