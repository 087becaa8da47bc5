"""Key files: written once, for one owner; refused when open to others, altered or hostile."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from nacl import pwhash
from nacl.exceptions import RuntimeError as SodiumError

from permslip import keyformat
from permslip.errors import KeyFileError
from permslip.keyfile import (
    KdfCost,
    PrincipalKind,
    StoredKeys,
    describe_key_file,
    read_key_file,
    write_key_file,
)
from permslip.keyformat import format_keys, parse_keys
from permslip.keys import SealingKey, SigningKey

CHEAP = KdfCost(opslimit=1, memlimit=8192)
PASSPHRASE = b"pferd richtig"
SIGNING = SigningKey.from_seed(bytes(32))
SEALING = SealingKey.from_seed(b"\x01" * 32)
BOTH = StoredKeys(PrincipalKind.NODE, SIGNING, SEALING)
ALONE = StoredKeys(PrincipalKind.GUARDIAN, SIGNING)
PLAIN = format_keys(BOTH, None, CHEAP)
PROTECTED = format_keys(BOTH, PASSPHRASE, CHEAP)


def same(one: StoredKeys, other: StoredKeys) -> bool:
    def parts(keys: StoredKeys) -> tuple[PrincipalKind, bytes, bytes | None]:
        return keys.kind, keys.signing.secret_seed(), keys.sealing.secret_seed() if keys.sealing else None

    return parts(one) == parts(other)


def place(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


# ------------------------------------------------------------------------------------ the format

EXAMPLES = [
    "\n".join(line.strip() for line in block.splitlines()) + "\n"
    for block in re.findall(r"(?m)(?:^    \S+: .+\n)+", keyformat.__doc__ or "")
    if "permslip-key: v1" in block and "HEX" not in block
]


def test_the_documented_examples_are_byte_exact() -> None:
    plain, protected = (example.encode("ascii") for example in EXAMPLES)
    assert plain == format_keys(StoredKeys(PrincipalKind.GUARDIAN, SIGNING, SEALING), None, CHEAP)
    assert same(parse_keys(protected, "example", b"correct horse"), ALONE)


def test_the_documented_protected_example_is_what_would_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_bytes", lambda count: {16: b"\x02", 24: b"\x03"}[count] * count)
    assert format_keys(ALONE, b"correct horse", CHEAP) == EXAMPLES[1].encode("ascii")


@given(
    st.sampled_from(PrincipalKind), st.binary(min_size=32, max_size=32), st.none() | st.binary(min_size=32, max_size=32)
)
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_what_is_written_is_read(
    passphrase: bytes | None, kind: PrincipalKind, seed: bytes, sealing_seed: bytes | None
) -> None:
    sealing = None if sealing_seed is None else SealingKey.from_seed(sealing_seed)
    keys = StoredKeys(kind, SigningKey.from_seed(seed), sealing)
    content = format_keys(keys, passphrase, CHEAP)
    assert same(parse_keys(content, "file", passphrase), keys)
    assert passphrase is None or seed.hex().encode() not in content


@settings(max_examples=300)
@given(st.data(), st.sampled_from([PLAIN, PROTECTED]))
def test_a_file_with_any_byte_altered_is_refused(data: st.DataObject, content: bytes) -> None:
    at = data.draw(st.integers(0, len(content) - 1))
    altered = content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
    with pytest.raises(KeyFileError):
        parse_keys(altered, "file", PASSPHRASE)


@given(st.integers(0, len(PROTECTED) - 1))
def test_a_file_cut_short_is_refused(length: int) -> None:
    with pytest.raises(KeyFileError):
        parse_keys(PROTECTED[:length], "file", PASSPHRASE)


@given(st.binary(max_size=400))
def test_any_other_bytes_are_refused_and_no_other_error_leaks(content: bytes) -> None:
    with pytest.raises(KeyFileError):
        parse_keys(content, "file", PASSPHRASE)


def swap(content: bytes, old: str, new: str) -> bytes:
    assert old.encode() in content
    return content.replace(old.encode(), new.encode())


OTHER_DID = SigningKey.from_seed(b"\x07" * 32).public.did


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "expected a key file of 1 to 2048 bytes"),
        (PLAIN + b"#" * 2048, "expected a key file of 1 to 2048 bytes"),
        (PLAIN[:-1], "ends with a line feed"),
        (swap(PLAIN, "node", "nöde"), "expected ASCII"),
        (PLAIN + b"\n", "line 7: expected «name: value»"),
        (PLAIN + b"kind: node\n", "line 7: expected «name: value», each name once"),
        (PLAIN + b"comment: mine\n", "in this order and no others"),
        (swap(PLAIN, "permslip-key: v1\nkind: node\n", "kind: node\npermslip-key: v1\n"), "in this order"),
        (swap(PLAIN, "sealing-seed", "sealing-sead"), "in this order and no others"),
        (swap(PLAIN, "v1", "v2"), "permslip-key: expected v1"),
        (swap(PLAIN, "kind: node", "kind: Node"), "kind: expected one of guardian, learner, provider, node"),
        (swap(PLAIN, "did:key:", "did:kex:"), "public: expected an Ed25519 key written did:key"),
        (swap(PLAIN, SIGNING.public.did, OTHER_DID), "expected the public keys of the seeds, got others"),
        (swap(PLAIN, SEALING.public.hex(), "09" * 32), "expected the public keys of the seeds, got others"),
        (swap(PLAIN, SEALING.public.hex(), SEALING.public.hex().upper()), "sealing-public: expected lower-case"),
        (swap(PLAIN, "01" * 32, "01" * 31), "sealing-seed: expected lower-case hexadecimal"),
        (swap(PLAIN, "\n", "\r\n"), "permslip-key: expected v1"),
        (swap(PROTECTED, "argon2id 1 ", "argon2id 01 "), "kdf: expected «argon2id OPSLIMIT MEMLIMIT SALT»"),
        (swap(PROTECTED, "argon2id", "argon2i"), "kdf: expected «argon2id"),
        (swap(PROTECTED, "argon2id 1 8192", "argon2id 1 8191"), "kdf: expected a key derivation of 1 to 16 passes"),
        (swap(PROTECTED, "argon2id 1 8192", "argon2id 2 8192"), "the passphrase is wrong"),
        (swap(PROTECTED, "kind: node", "kind: broker"), "altered after it was written"),
        (swap(PROTECTED, SIGNING.public.did, OTHER_DID), "altered after it was written"),
        (PROTECTED[:-3] + b"\n", "sealed: expected lower-case hexadecimal"),
        (
            swap(PROTECTED, f"sealing-public: {SEALING.public.hex()}\n", ""),
            "sealed: expected lower-case hexadecimal",
        ),
    ],
)
def test_what_the_format_does_not_say_is_refused_by_name(content: bytes, says: str) -> None:
    with pytest.raises(KeyFileError, match=f"^file: .*{re.escape(says)}") as caught:
        parse_keys(content, "file", PASSPHRASE)
    assert caught.value.remedy


@pytest.mark.parametrize("cost", ["1 68719476736", "17 8192", "4294967295 8192", "1 1073741825"])
def test_a_hostile_cost_is_refused_before_memory_is_taken(cost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwhash.argon2id, "kdf", None)  # called, it would fail with another error
    with pytest.raises(KeyFileError, match="kdf: expected a key derivation") as caught:
        parse_keys(swap(PROTECTED, "argon2id 1 8192", f"argon2id {cost}"), "file", PASSPHRASE)
    assert "unless you know who wrote it" in caught.value.remedy


def test_no_message_shows_a_secret() -> None:
    for content in (PLAIN[:-2] + b"\n", swap(PLAIN, SIGNING.public.did, OTHER_DID), PLAIN + b"x: y\n"):
        with pytest.raises(KeyFileError) as caught:
            parse_keys(content, "file", None)
        assert "0000000000" not in str(caught.value)
        assert "0101010101" not in str(caught.value)


# ------------------------------------------------------------------------------------ passphrases


def test_another_passphrase_is_refused() -> None:
    with pytest.raises(KeyFileError, match="the passphrase is wrong, or the file was altered"):
        parse_keys(PROTECTED, "file", b"guess")


def test_a_protected_file_without_a_passphrase_says_so() -> None:
    with pytest.raises(KeyFileError, match="protected by a passphrase. Give its passphrase"):
        parse_keys(PROTECTED, "file", None)


def test_a_callable_is_asked_only_where_there_is_something_to_open() -> None:
    asked: list[str] = []

    def ask() -> bytes:
        asked.append("asked")
        return PASSPHRASE

    parse_keys(PLAIN, "file", ask)
    assert asked == []
    assert same(parse_keys(PROTECTED, "file", ask), BOTH)
    assert asked == ["asked"]


@pytest.mark.parametrize("empty", [b"", lambda: b""])
def test_an_empty_passphrase_is_refused(empty: bytes, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="the passphrase is empty"):
        write_key_file(tmp_path / "key", ALONE, passphrase=empty, cost=CHEAP)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyFileError, match="the passphrase is empty"):
        parse_keys(PROTECTED, "file", empty)


def test_two_files_of_one_key_share_neither_salt_nor_nonce() -> None:
    one, other = (format_keys(ALONE, PASSPHRASE, CHEAP).split() for _ in range(2))
    assert one[-1][:48] != other[-1][:48]
    assert one[-3] != other[-3]


def test_memory_that_cannot_be_had_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object, **__: object) -> bytes:
        raise SodiumError("Unexpected failure in key derivation")

    monkeypatch.setattr(pwhash.argon2id, "kdf", out_of_memory)
    with pytest.raises(KeyFileError, match="needs 256 MiB of memory, which could not be had"):
        format_keys(ALONE, PASSPHRASE, KdfCost())


@pytest.mark.parametrize(("opslimit", "memlimit"), [(0, 8192), (17, 8192), (1, 8191), (1, 2**30 + 1)])
def test_a_cost_outside_the_bounds_cannot_be_asked_for(opslimit: int, memlimit: int) -> None:
    with pytest.raises(KeyFileError, match="expected a key derivation of 1 to 16 passes"):
        KdfCost(opslimit, memlimit)


# ------------------------------------------------------------------------------------ the disk


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_file_is_written_for_its_owner_alone_and_read_back(tmp_path: Path, passphrase: bytes | None) -> None:
    path = tmp_path / "node.key"
    write_key_file(path, BOTH, passphrase=passphrase, cost=CHEAP)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1
    assert list(tmp_path.iterdir()) == [path]
    assert same(read_key_file(str(path), passphrase=passphrase), BOTH)


@pytest.mark.parametrize("umask", [0, 0o277])
def test_the_mode_is_0600_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_key_file(tmp_path / "key", ALONE)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_file_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = place(tmp_path / "key", b"precious")
    with pytest.raises(KeyFileError, match="exists, and a private key is not replaced unasked"):
        write_key_file(path, ALONE)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="exists"):
        write_key_file(tmp_path / "key", ALONE)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_is_replaced_when_asked_and_the_old_one_lives_on_elsewhere(tmp_path: Path) -> None:
    path = place(tmp_path / "key", b"old", mode=0o644)
    os.link(path, tmp_path / "copy")
    write_key_file(path, ALONE, overwrite=True)
    assert same(read_key_file(path), ALONE)
    assert (tmp_path / "copy").read_bytes() == b"old"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["copy", "key"]


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"none/key cannot be written: No such file .* folder exists"):
        write_key_file(tmp_path / "none" / "key", ALONE)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(KeyFileError, match="No space left on device"):
        write_key_file(tmp_path / "key", ALONE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_a_file_that_others_have_any_right_to_is_refused_with_its_remedy(tmp_path: Path, mode: int) -> None:
    path = place(tmp_path / "key", PLAIN, mode)
    with pytest.raises(KeyFileError, match=rf"is open to others \(mode 0{mode:o}\)") as caught:
        read_key_file(path)
    assert caught.value.remedy == f"chmod 600 {path}"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_for_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    assert same(read_key_file(place(tmp_path / "key", PLAIN, mode)), BOTH)


def test_somebody_elses_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place(tmp_path / "key", PLAIN)
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(KeyFileError, match=f"belongs to user {owner}, and you are user {owner + 1}") as caught:
        read_key_file(path)
    assert caught.value.remedy == f"chown {owner + 1} {path}"


def test_a_symbolic_link_is_refused_even_to_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(place(tmp_path / "key", PLAIN))
    with pytest.raises(KeyFileError, match="is a symbolic link"):
        read_key_file(tmp_path / "link")


def test_a_folder_or_pipe_in_the_files_place_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for found in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(KeyFileError, match="is no regular file"):
            read_key_file(found)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"absent\.key cannot be opened: No such file"):
        read_key_file(tmp_path / "absent.key")


def test_a_huge_file_is_refused_by_its_first_bytes(tmp_path: Path) -> None:
    path = place(tmp_path / "key", b"")
    os.truncate(path, 2**40)  # sparse
    with pytest.raises(KeyFileError, match="expected a key file of 1 to 2048 bytes"):
        read_key_file(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(st.sampled_from(PrincipalKind))
def test_a_protected_file_is_described_without_its_passphrase(tmp_path: Path, kind: PrincipalKind) -> None:
    path = tmp_path / "key"
    write_key_file(path, StoredKeys(kind, SIGNING, SEALING), passphrase=PASSPHRASE, cost=CHEAP, overwrite=True)
    summary = describe_key_file(path)
    assert (summary.kind, summary.public, summary.sealing_public) == (kind, SIGNING.public, SEALING.public)
    assert summary.protected


def test_an_unprotected_file_is_described_as_such(tmp_path: Path) -> None:
    write_key_file(tmp_path / "key", ALONE)
    summary = describe_key_file(tmp_path / "key")
    assert not summary.protected
    assert summary.sealing_public is None


def test_another_file_in_a_key_file_s_place_is_said_to_be_none_whatever_its_mode(tmp_path: Path) -> None:
    for mode in (0o600, 0o644):
        path = place(tmp_path / f"online.cert-{mode}", b"-----BEGIN PERMSLIP KEY-CERT-----\n", mode)
        with pytest.raises(KeyFileError) as caught:
            read_key_file(path)
        assert "Give the path of" in caught.value.remedy
