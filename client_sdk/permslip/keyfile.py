"""Private key files: the one place where a secret key touches a disk.

What stands in such a file is told, byte by byte, in :mod:`permslip.keyformat`.

Rules:

- Created with mode 0600, whole or not at all, flushed to the disk; never replaces a file unless told to.
- Refused when it is a symbolic link, no regular file, somebody else's, or when group or others have any right
  to it.
- A passphrase comes as bytes (UTF-8, NFC) or from a callable that asks for it; never from the command line.

Example::

    write_key_file("root.key", StoredKeys(PrincipalKind.PROVIDER, SigningKey.generate()), passphrase=ask)
    keys = read_key_file("root.key", passphrase=ask)
    keys.signing.sign(b"...")
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from permslip.errors import KeyFileError
from permslip.keyformat import (
    FIRST_LINE,
    MAX_FILE_BYTES,
    KdfCost,
    KeyFileSummary,
    Passphrase,
    PrincipalKind,
    StoredKeys,
    describe_keys,
    format_keys,
    parse_keys,
)

__all__ = [
    "KdfCost",
    "KeyFileSummary",
    "Passphrase",
    "PrincipalKind",
    "StoredKeys",
    "describe_key_file",
    "read_key_file",
    "write_key_file",
]


def write_key_file(
    path: str | os.PathLike[str],
    keys: StoredKeys,
    *,
    passphrase: Passphrase | None = None,
    cost: KdfCost | None = None,
    overwrite: bool = False,
) -> None:
    """Write a new key file with mode 0600.

    Args:
        path: where; the folder must exist.
        keys: what to write.
        passphrase: protects the file, if given.
        cost: of the key derivation; libsodium's «moderate» unless given.
        overwrite: replace what is there.

    Raises:
        KeyFileError: the file exists, the passphrase is empty, or the file cannot be written.
    """
    target = Path(path)
    content = format_keys(keys, passphrase, cost or KdfCost())
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        try:
            _write_whole(draft, content)
            if overwrite:
                draft.replace(target)
            else:
                os.link(draft, target)  # the one step that both refuses to replace and shows whole files only
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()
        _flush_folder(target.parent)
    except FileExistsError:
        raise KeyFileError(
            f"{target} exists, and a private key is not replaced unasked.",
            remedy="Choose another name, or move the old file away first.",
        ) from None
    except OSError as error:
        raise KeyFileError(
            f"{target} cannot be written: {error.strerror}.",
            remedy="Check that the folder exists and is yours.",
        ) from error


def read_key_file(path: str | os.PathLike[str], *, passphrase: Passphrase | None = None) -> StoredKeys:
    """Read a key file.

    Args:
        path: where.
        passphrase: of a protected file; a callable is called only if the file is protected.

    Raises:
        KeyFileError: missing, open to others, not what the format says, or in need of another passphrase.
    """
    return parse_keys(_read(Path(path)), str(path), passphrase)


def describe_key_file(path: str | os.PathLike[str]) -> KeyFileSummary:
    """What a key file says of itself, for listings; asks for no passphrase.

    Raises:
        KeyFileError: as :func:`read_key_file`, but for the passphrase.
    """
    return describe_keys(_read(Path(path)), str(path))


def _write_whole(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
        os.fchmod(stream.fileno(), 0o600)  # whatever the umask took away
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _read(source: Path) -> bytes:
    """Open without following a link, judge what was opened, then read it."""
    try:
        # Non-blocking: a named pipe in the file's place must not hang the caller.
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise KeyFileError(
                f"{source} is a symbolic link, and a private key is read from its own place only.",
                remedy="Give the path of the file itself.",
            ) from None
        raise KeyFileError(
            f"{source} cannot be opened: {error.strerror}.", remedy="Check the path and who owns the file."
        ) from error
    try:
        status = os.fstat(descriptor)
        _judge_owner(status, source)
        content = os.read(descriptor, MAX_FILE_BYTES + 1)
        _judge_mode(status, source, content)
        return content
    finally:
        os.close(descriptor)


def _judge_owner(status: os.stat_result, source: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{source} is no regular file.", remedy="Give the path of the key file itself.")
    if status.st_uid != os.geteuid():
        raise KeyFileError(
            f"{source} belongs to user {status.st_uid}, and you are user {os.geteuid()}.",
            remedy=f"chown {os.geteuid()} {source}",
        )


def _judge_mode(status: os.stat_result, source: Path, content: bytes) -> None:
    if status.st_mode & 0o077:
        if not content.startswith(FIRST_LINE):
            raise KeyFileError(f"{source} is no key file.", remedy="Give the path of the key file itself.")
        raise KeyFileError(
            f"{source} is open to others (mode {stat.S_IMODE(status.st_mode):04o}).",
            remedy=f"chmod 600 {source}",
        )


def _flush_folder(folder: Path) -> None:
    """Make the new name itself durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
