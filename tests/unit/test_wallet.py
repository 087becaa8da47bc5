"""The wallet keeps what was linked and signed, for its owner alone, whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from permslip.errors import ConfigurationError, KeyFileError, MalformedError
from permslip.keyformat import PrincipalKind
from permslip.wallet import GivenGrant, LinkedSlice, Wallet

SLICE = LinkedSlice(
    node=b"n" * 32, handle=b"h" * 16, learner="Mia", learner_name="Mia Ortiz", node_name="Lincoln", quorum_rule="all"
)
GRANT = GivenGrant(
    grant_id=b"g" * 32,
    consent_id=b"c" * 16,
    node=b"n" * 32,
    handle=b"h" * 16,
    grantee=b"t" * 32,
    grantee_name="Ana's Tutoring",
    learner="Mia",
    purpose_text="Help with reading",
    reference="learner-17",
    notice="You allow …",
    signed_at=1,
    expires_at=2,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "family"


def test_what_was_kept_is_there_when_it_is_opened_again(folder: Path) -> None:
    wallet = Wallet.create(folder)
    wallet.add_slice(SLICE)
    wallet.add_grants([GRANT])

    again = Wallet.open(folder)

    assert again.slices == (SLICE,)
    assert again.grants == (GRANT,)
    assert again.keys.signing.public == wallet.keys.signing.public
    assert again.public == wallet.keys.signing.public
    assert again.keys.kind == PrincipalKind.GUARDIAN


def test_nobody_else_can_open_folder_or_files(folder: Path) -> None:
    Wallet.create(folder).add_slice(SLICE)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}


def test_a_wallet_open_to_others_is_refused(folder: Path) -> None:
    Wallet.create(folder)
    folder.chmod(0o755)

    with pytest.raises(ConfigurationError, match="chmod 700"):
        Wallet.open(folder)


def test_a_folder_without_wallet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no wallet"):
        Wallet.open(tmp_path)


def test_a_second_wallet_does_not_replace_the_first(folder: Path) -> None:
    first = Wallet.create(folder)

    with pytest.raises(KeyFileError, match="exists"):
        Wallet.create(folder)

    assert Wallet.open(folder).public == first.public


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="cannot be made"):
        Wallet.create(tmp_path / "file" / "family")


def test_the_passphrase_is_asked_for_when_the_key_is_needed(folder: Path) -> None:
    Wallet.create(folder, passphrase=b"correct horse")
    asked: list[int] = []

    def ask() -> bytes:
        asked.append(1)
        return b"correct horse"

    wallet = Wallet.open(folder, passphrase=ask)

    assert asked == []
    assert wallet.keys.signing.public == wallet.public
    assert wallet.keys is wallet.keys
    assert asked == [1]


def test_linking_again_replaces_what_the_school_said(folder: Path) -> None:
    wallet = Wallet.create(folder)
    wallet.add_slice(SLICE)

    wallet.add_slice(replace(SLICE, quorum_rule="any"))

    assert [each.quorum_rule for each in wallet.slices] == ["any"]


def test_slices_are_found_by_the_learners_name(folder: Path) -> None:
    wallet = Wallet.create(folder)
    wallet.add_slice(SLICE)
    wallet.add_slice(replace(SLICE, handle=b"i" * 16, learner="Leo"))

    assert wallet.learners == ("Mia", "Leo")
    assert wallet.of_learner("mia") == (SLICE,)
    with pytest.raises(MalformedError, match="Linked are: Mia, Leo"):
        wallet.of_learner("Zoe")


def test_a_confirmed_end_is_remembered(folder: Path) -> None:
    wallet = Wallet.create(folder)
    wallet.add_grants([GRANT, replace(GRANT, grant_id=b"o" * 32)])

    wallet.mark_revoked([GRANT.grant_id])

    assert [each.revoked for each in Wallet.open(folder).grants] == [True, False]


def _add_ten(folder: Path, start: int) -> None:
    wallet = Wallet.open(folder)
    for number in range(start, start + 10):
        wallet.add_slice(replace(SLICE, handle=number.to_bytes(16, "big")))


def test_two_processes_at_once_lose_nothing(folder: Path) -> None:
    Wallet.create(folder)
    context = multiprocessing.get_context("spawn")

    both = [context.Process(target=_add_ten, args=(folder, start)) for start in (0, 100)]
    for each in both:
        each.start()
    for each in both:
        each.join()

    assert len(Wallet.open(folder).slices) == 20
    assert not [each for each in folder.iterdir() if each.name.startswith(".wallet.json")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("not json", "expected a wallet of version 1"),
        ("[]", "expected a wallet of version 1"),
        ('{"version": 2}', "expected a wallet of version 1"),
        ('{"version": 1}', "expected version, slices and grants"),
        ('{"version": 1, "slices": {}, "grants": []}', "slices: expected a list"),
        ('{"version": 1, "slices": [{}], "grants": []}', r"slices\[0\]: expected node, handle"),
    ],
)
def test_a_wallet_that_is_not_what_the_format_says_is_refused(folder: Path, change: str, message: str) -> None:
    Wallet.create(folder)
    (folder / "wallet.json").write_text(change)

    with pytest.raises(MalformedError, match=message):
        Wallet.open(folder)


@pytest.mark.parametrize(("name", "value"), [("learner", 7), ("other_guardians", True), ("node", "xyz"), ("node", 1)])
def test_a_value_of_a_wrong_type_is_named(folder: Path, name: str, value: object) -> None:
    Wallet.create(folder).add_slice(SLICE)
    document = json.loads((folder / "wallet.json").read_text())
    document["slices"][0][name] = value
    (folder / "wallet.json").write_text(json.dumps(document))

    with pytest.raises(MalformedError, match=rf"slices\[0\]\.{name}"):
        Wallet.open(folder)


def test_a_broker_s_number_never_falls_and_is_there_when_it_is_opened_again(folder: Path) -> None:
    wallet = Wallet.create(folder)
    assert wallet.broker_seq(b"b" * 32) == 0

    wallet.saw_broker_seq(b"b" * 32, 3)
    wallet.saw_broker_seq(b"b" * 32, 2)
    wallet.saw_broker_seq(b"o" * 32, 1)

    again = Wallet.open(folder)
    assert (again.broker_seq(b"b" * 32), again.broker_seq(b"o" * 32)) == (3, 1)
    assert stat.S_IMODE((folder / "brokers.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["rubbish", '{"version": 1}', '{"version": 1, "brokers": {"00": "x"}}'])
def test_a_file_of_brokers_that_is_no_such_file_is_an_error_that_names_it(folder: Path, content: str) -> None:
    wallet = Wallet.create(folder)
    (folder / "brokers.json").write_text(content)

    with pytest.raises(MalformedError, match=r"brokers\.json"):
        wallet.broker_seq(b"b" * 32)
