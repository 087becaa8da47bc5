"""A parent's own proof: both ledgers' chains joined, saved as files, and checked without network."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.armor import read_statements, write_statements
from permslip.client.accesses import AccessReport
from permslip.client.guarding import AsyncGuardianClient
from permslip.client.proof_checking import ProofChecker, missing_numbers
from permslip.client.proof_files import CERTIFICATES, save_proofs
from permslip.client.providing import AsyncClient
from permslip.errors import ConfigurationError, KeyRejectedError, PermslipError
from permslip.keys import SigningKey
from permslip.reasons import Reason
from permslip.tlog_proof import SUFFIX, TlogProof
from permslip.wallet import Wallet
from tests.e2e.broker.small_federation import FEDERATION
from tests.e2e.sdk.three_schools import TERMS, ThreeSchools

pytestmark = pytest.mark.e2e


@pytest.fixture
async def schools(tmp_path: Path) -> AsyncIterator[ThreeSchools]:
    async with ThreeSchools.running(tmp_path) as running:
        yield running


@pytest.fixture
async def mother(schools: ThreeSchools) -> AsyncIterator[AsyncGuardianClient]:
    Wallet.create(schools.folder / "family")
    async with schools.guardian("mother", wallet=schools.folder / "family") as client:
        yield client


@pytest.fixture
async def tutor(schools: ThreeSchools) -> AsyncIterator[AsyncClient]:
    async with schools.tutor() as client:
        yield client


async def settled(mother: AsyncGuardianClient) -> AccessReport:
    """The report once both ledgers say how every answer ended: they say so a moment behind the answer."""
    while True:
        report = await mother.accesses()
        sides = [side for each in report if not each.refused_by for side in (each.broker, each.school)]
        if all(side is None or side.ended is not None for side in sides):
            return report


async def read_once(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient, *names: str
) -> AccessReport:
    await schools.link(mother, *names)
    await mother.grant(schools.tutor_root, **TERMS)
    assert (await tutor.profile("learner-17", sections=["personal.attendance"])).attendance
    return await settled(mother)


# -------------------------------------------------------------------------------------------- the report


async def test_both_ledgers_tell_of_each_access_what_was_released_and_agree(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    report = await read_once(schools, mother, tutor, "Lincoln", "Birch")

    assert (len(report), report.is_complete, report.findings) == (2, True, ())
    for access in report:
        assert access.broker is not None
        assert access.school is not None
        assert (access.reason, access.ended) == (Reason.ALLOWED, Reason.ALLOWED)
        assert access.released == access.broker.sealed_bytes > 0
        assert [each.event for each in access.entries] == ["access_decided", "access_answered"] * 2
    for each in report.slices:
        assert each.end is not None
        assert each.end.payload.slice_seq == len(each.school)
        assert {entry.ledger for entry in each.school} == {each.node}


async def test_a_school_that_is_off_line_is_said_to_be(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await read_once(schools, mother, tutor, "Lincoln", "Birch")
    await schools.stop("Birch")

    report = await mother.accesses()

    by_name = {each.node_name: each for each in report.slices}
    assert (by_name["Lincoln"].error, by_name["Birch"].is_false) == (None, False)
    assert "the school's own count could not be had" in by_name["Birch"].text
    assert (report.is_complete, report.findings) == (False, ())
    assert {each.node_name: each.released is None for each in report} == {"Lincoln": False, "Birch": True}


async def test_a_linked_school_without_a_consent_tells_its_own_side(
    schools: ThreeSchools, mother: AsyncGuardianClient
) -> None:
    await schools.link(mother, "Lincoln")

    report = await mother.accesses()

    (only,) = report.slices
    assert (only.broker_tells, only.error, len(only.school), report.findings) == (False, None, 1, ())


async def test_guardians_who_are_hidden_from_one_another_see_nothing_of_the_others_doing(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await schools.link(mother, "Birch")
    async with schools.guardian("father") as father:
        await schools.link(father, "Birch", person="P2")
        async with schools.schools["Birch"].office() as office:
            await office.visibility("604822", visible=False)
        await father.grant(schools.tutor_root, **TERMS)
        await tutor.profile("learner-17", sections=["personal.attendance"])
        await father.profile()
        await mother.profile(sections=["personal.attendance"])
        canaries = [father.public.raw, *[each.grant_id for each in (father.wallet.grants if father.wallet else ())]]
        his = await settled(father)
    hers = await settled(mother)

    told = b"".join(each.proof.extra or b"" for each in hers.entries)
    assert canaries
    assert not [each for each in canaries if each in told]
    assert {each.requester for each in hers} == {mother.public.raw}
    assert {each.requester for each in his} == {father.public.raw, schools.tutor_root}
    assert not [each async for each in mother.grants() if each.grantee_name == "Tutors"]
    for report in (hers, his):
        assert (report.is_complete, report.findings) == (True, ())
        assert any(each.entry is None for each in report.slices[0].school)
        assert any(each.entry is None for each in report.slices[0].broker)


async def test_another_familys_entries_are_in_nobody_elses_report(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    report = await read_once(schools, mother, tutor, "Lincoln")
    school = schools.schools["Lincoln"]
    other = school.learner("700001", attendance=3, guardians=["P9"])
    async with schools.guardian("neighbour") as neighbour:
        await neighbour.link(school.slip("700001", "P9").slip.text(), learner="Bo")
        await neighbour.profile()
        theirs = await settled(neighbour)
    again = await settled(mother)

    told, others = (
        b"".join(each.proof.extra or b"" for each in each_report.entries) for each_report in (again, theirs)
    )
    assert len(again) == len(report)
    assert not [each for each in (other, neighbour.public.raw) if each in told]
    assert not [
        each for each in (report.slices[0].handle, mother.public.raw, report.accesses[0].query_id) if each in others
    ]


# -------------------------------------------------------------------------------------------- witnesses


def witness_file(schools: ThreeSchools, path: Path) -> Path:
    """The operator's word that two of the three schools must have cosigned the broker's ledger."""
    operator = schools.federation.operator
    payload = pb.WitnessSet(
        federation=FEDERATION,
        nonce=os.urandom(16),
        created_at=schools.federation.now(),
        signer=operator.signer,
        seq=1,
        witnesses=sorted(each.root for each in schools.schools.values()),
        quorum=2,
    )
    write_statements(path, [st.sign(st.WITNESS_SET, payload, [operator.key]).envelope])
    return path


async def test_proofs_are_against_a_checkpoint_that_witnesses_cosigned(
    schools: ThreeSchools, tutor: AsyncClient, tmp_path: Path
) -> None:
    for name in ("Lincoln", "Birch", "Cedar"):
        await schools.school(name)
    witnesses = witness_file(schools, tmp_path / "witnesses.txt")
    Wallet.create(schools.folder / "family")
    async with schools.guardian("mother", wallet=schools.folder / "family", witnesses=witnesses) as mother:
        report = await read_once(schools, mother, tutor, "Lincoln")
        assert (report.is_complete, report.findings) == (True, ())
        assert {each.cosignatures >= 2 for each in report.slices[0].broker} == {True}
        folder = tmp_path / "proofs"
        save_proofs(report, folder)
        with schools.settings_file().open("a") as settings:
            settings.write(f'witnesses = "{witnesses}"\n')
        checked = await run(schools.folder, "check-proof", str(folder))
        assert checked.code == 0, checked.output
        assert "witnesses.txt" in {each.name for each in folder.iterdir()}

        # Two of three no longer cosign what is new: it is shown, and said not to be witnessed.
        await schools.stop("Birch")
        await schools.stop("Cedar")
        await tutor.profile("learner-17", sections=["personal.attendance"])
        report = await mother.accesses()

    assert len(report) == 2
    assert report.slices[0].unwitnessed is not None
    assert ["not enough witnesses" in each for each in report.findings] == [True]
    save_proofs(report, tmp_path / "unwitnessed")
    refused = await run(schools.folder, "check-proof", str(tmp_path / "unwitnessed"))
    assert (refused.code, "DOES NOT HOLD" in refused.output) == (1, True)


# -------------------------------------------------------------------------------------------- the files


@pytest.fixture
async def saved(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient, tmp_path: Path
) -> tuple[AccessReport, Path]:
    report = await read_once(schools, mother, tutor, "Lincoln", "Birch")
    folder = tmp_path / "proofs"
    assert save_proofs(report, folder) == len(report.entries)
    return report, folder


def checker_of(schools: ThreeSchools, folder: Path, *, roots: set[bytes] | None = None) -> ProofChecker:
    known = {schools.federation.root, *(each.root for each in schools.schools.values())} if roots is None else roots
    return ProofChecker(read_statements(folder / CERTIFICATES), roots=known, federation=FEDERATION)


async def test_every_entry_is_a_file_that_holds_by_itself(
    schools: ThreeSchools, saved: tuple[AccessReport, Path]
) -> None:
    report, folder = saved
    files = sorted(folder.glob(f"*{SUFFIX}"))

    checker = checker_of(schools, folder)
    checked = [checker.check(each) for each in files]

    assert len(checked) == len(report.entries)
    assert {each.leaf_hash for each in checked} == {each.leaf_hash for each in report.entries}
    times = [each.entry.recorded_at for each in checked if each.entry is not None]
    assert times == sorted(times)
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    readme = (folder / "README.txt").read_text()
    assert {each for each in ("SHA-256 over a zero byte", "permslip guardian check-proof") if each in readme}
    ends = [each.end.payload for each in report.slices if each.end is not None]
    assert missing_numbers(ends, checked) == [(), ()]


async def test_a_file_that_was_altered_or_is_by_a_stranger_does_not_hold(
    schools: ThreeSchools, saved: tuple[AccessReport, Path]
) -> None:
    report, folder = saved
    path = next(each for each in sorted(folder.glob(f"*{SUFFIX}")) if "asked" in each.name)
    proof = TlogProof.parse(path.read_bytes())
    assert proof.extra is not None
    altered = proof.extra.replace(b"personal.attendance", b"personal.attendancf")
    path.write_bytes(TlogProof(proof.index, proof.hashes, proof.checkpoint, altered).raw())

    with pytest.raises(PermslipError):
        checker_of(schools, folder).check(path)
    stranger = SigningKey.generate().public.raw
    other = next(each for each in sorted(folder.glob(f"*{SUFFIX}")) if each != path)
    with pytest.raises(KeyRejectedError, match="not among the roots that are trusted"):
        checker_of(schools, folder, roots={stranger}).check(other)
    checked = [checker_of(schools, folder).check(each) for each in folder.glob(f"*{SUFFIX}") if each != path]
    ends = [each.end.payload for each in report.slices if each.end is not None]
    lost = missing_numbers(ends, checked)
    assert sum(map(len, lost)) in {0, 1}, "only a school's own chain has a signed end"


async def test_hidden_entries_are_files_too_and_count(
    schools: ThreeSchools, mother: AsyncGuardianClient, tmp_path: Path
) -> None:
    await schools.link(mother, "Birch")
    async with schools.guardian("father") as father:
        await schools.link(father, "Birch", person="P2")
        async with schools.schools["Birch"].office() as office:
            await office.visibility("604822", visible=False)
        await father.profile()
    await mother.profile()
    report = await settled(mother)
    folder = tmp_path / "proofs"
    save_proofs(report, folder)

    files = sorted(folder.glob(f"*{SUFFIX}"))
    hidden = [each for each in files if "-hidden-" in each.name]
    checker = checker_of(schools, folder)
    checked = [checker.check(each) for each in files]

    assert len(hidden) > 2
    ends = [each.end.payload for each in report.slices if each.end is not None]
    assert missing_numbers(ends, checked) == [()]
    school = [each for each in checked if each.entry is None and each.ledger == report.slices[0].node]
    without_one = [each for each in checked if each is not school[0]]
    assert len(missing_numbers(ends, without_one)[0]) == 1
    renamed = hidden[0].with_name(hidden[0].name.replace(hidden[0].name[-20:-11], "0" * 9))
    hidden[0].rename(renamed)
    with pytest.raises(PermslipError):
        checker.check(renamed)


async def test_a_folder_that_others_can_read_is_refused(saved: tuple[AccessReport, Path], tmp_path: Path) -> None:
    report, _ = saved
    (tmp_path / "open").mkdir(mode=0o755)

    with pytest.raises(ConfigurationError, match="chmod 700"):
        save_proofs(report, tmp_path / "open")


# -------------------------------------------------------------------------------------------- the commands


@dataclass
class Done:
    """What a command did."""

    code: int
    output: str
    errors: str


async def run(folder: Path, *words: str) -> Done:
    """One ``permslip guardian`` command, in a process of its own: this one's output is the servers' too."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "permslip",
        "guardian",
        *words,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert b"Traceback" not in errors, errors.decode()
    return Done(process.returncode or 0, output.decode(), errors.decode())


async def typed(schools: ThreeSchools, *words: str) -> Done:
    """The same with the mother's settings."""
    return await run(schools.folder, "--config", str(schools.settings_file()), *words)


async def test_the_commands_show_save_and_check(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient, tmp_path: Path
) -> None:
    await read_once(schools, mother, tutor, "Lincoln", "Birch")
    folder = tmp_path / "proofs"

    shown = await typed(schools, "accesses", "--save", str(folder))

    assert shown.code == 0, shown.output
    lines = shown.output.splitlines()
    assert [("Tutors" in each, "tutoring" in each, "ALLOWED" in each, "kB" in each) for each in lines[1:3]] == [
        (True,) * 4
    ] * 2
    assert "Lincoln: the broker's entries 1 to " in shown.output
    assert "none missing; the school's own 1 to " in shown.output
    checked = await typed(schools, "check-proof", str(folder))
    assert checked.code == 0, checked.output
    count = len(list(folder.glob(f"*{SUFFIX}")))
    assert f"{count} of {count} proofs hold." in checked.output
    assert checked.output.count("none missing") == 2
    document = json.loads((await typed(schools, "accesses", "--json")).output)
    assert (document["complete"], document["findings"], len(document["accesses"])) == (True, [], 2)

    one = next(each for each in folder.glob(f"*asked{SUFFIX}") if "lincoln" in each.name)
    alone = await typed(schools, "check-proof", str(one), "--json")
    assert (alone.code, json.loads(alone.output)["held"]) == (0, 1)
    one.unlink()
    missing = await typed(schools, "check-proof", str(folder))
    assert (missing.code, "MISSING" in missing.output) == (1, True)


async def test_a_school_that_is_off_line_is_told_with_its_own_exit_code(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await read_once(schools, mother, tutor, "Lincoln")
    await schools.stop("Lincoln")

    shown = await typed(schools, "accesses")

    assert shown.code == 3
    assert "the school's own count could not be had" in shown.output
    assert "not known" in shown.output


async def test_without_a_root_to_trust_nothing_is_checked(
    saved: tuple[AccessReport, Path], schools: ThreeSchools
) -> None:
    _, folder = saved
    path = next(each for each in sorted(folder.glob(f"*{SUFFIX}")) if "broker" in each.name)
    did = schools.federation.broker_keys.root_key.public.did

    refused = await run(folder, "check-proof", str(path))
    believed = await run(folder, "check-proof", str(path), "--root", did)

    assert refused.code == 1
    assert "there is no root to trust" in refused.errors
    assert believed.code == 0, believed.output
