"""A guardian's wallet: one folder that holds her key, her linked slices and the consents she gave.

What stands in it never leaves her device: names of learners and schools, and the words of the consents, which the
broker must not see.

Rules:

- The folder is 0700, its files 0600; a wallet that others can open is refused. The key file may be protected by a
  passphrase; ``wallet.json`` is not, so the folder belongs on a disk that is encrypted.
- Every change is written whole to a new file, flushed, and put in the old one's place, under a lock: neither a power
  cut nor two processes at once lose anything.
- ``wallet.json`` carries a version, and is read strictly: an unknown key or a wrong type is an error that names it.
  So does ``brokers.json``, which holds for each broker the highest number of a certificate that it has shown.

Example::

    wallet = Wallet.create("family", passphrase=ask)
    wallet.add_slice(linked)
    [each.learner for each in wallet.slices]
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from permslip.errors import ConfigurationError, MalformedError, PermslipError
from permslip.keyfile import Passphrase, PrincipalKind, StoredKeys, describe_key_file, read_key_file, write_key_file
from permslip.keys import PublicKey, SealingKey, SigningKey

__all__ = ["GivenGrant", "LinkedSlice", "Wallet"]

_VERSION: Final = 1
_KEY_FILE: Final = "wallet.key"
_CONTENT_FILE: Final = "wallet.json"
_BROKERS_FILE: Final = "brokers.json"
_LOCK_FILE: Final = ".lock"
_MAX_BYTES: Final = 16 << 20

E = TypeVar("E", "LinkedSlice", "GivenGrant")


@dataclass(frozen=True, slots=True)
class LinkedSlice:
    """What one node holds about one learner, as far as the guardian's device was told.

    Attributes:
        node: the node's root key.
        handle: the learner's at this node.
        learner: what the guardian calls the learner; slices with the same name are one learner.
        learner_name, node_name, relationship: as the node says.
        quorum_rule: whose signature this school asks for: ``any`` or ``all``.
        other_guardians: how many other persons hold authority.
        majority_at: when authority passes to the learner, UTC milliseconds; 0 when unknown.
        linked_at: UTC milliseconds.
    """

    node: bytes
    handle: bytes
    learner: str
    learner_name: str
    node_name: str
    relationship: str = ""
    quorum_rule: str = "any"
    other_guardians: int = 0
    majority_at: int = 0
    linked_at: int = 0


@dataclass(frozen=True, slots=True)
class GivenGrant:
    """A grant that was signed here, with the words that only this device, the node and the grantee know.

    Attributes:
        grant_id: its id.
        consent_id: which consent it was deposited with; empty until then.
        node, handle: the slice.
        grantee: to whom.
        grantee_name: as it was shown when it was signed.
        learner: as in :class:`LinkedSlice`.
        purpose_text, reference: what the private part says.
        notice: the very text that was shown.
        signed_at, expires_at: UTC milliseconds.
        revoked: whether the node confirmed its end, as this device verified.
    """

    grant_id: bytes
    consent_id: bytes
    node: bytes
    handle: bytes
    grantee: bytes
    grantee_name: str
    learner: str
    purpose_text: str
    reference: str
    notice: str
    signed_at: int
    expires_at: int
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class _Content:
    slices: tuple[LinkedSlice, ...] = ()
    grants: tuple[GivenGrant, ...] = ()


class Wallet:
    """An open wallet. Made by :meth:`create` and :meth:`open`."""

    def __init__(self, folder: Path, passphrase: Passphrase | None) -> None:
        self.folder = folder
        self._passphrase = passphrase
        self._keys: StoredKeys | None = None
        self._content = _Content()

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        *,
        kind: PrincipalKind = PrincipalKind.GUARDIAN,
        passphrase: Passphrase | None = None,
    ) -> Wallet:
        """Make a new wallet with a new key.

        Args:
            folder: is made if it is missing; must not hold a wallet.
            kind: guardian or learner.
            passphrase: protects the key, if given.

        Raises:
            KeyFileError: there is a key in the folder, or it cannot be written.
            ConfigurationError: the folder cannot be made.
        """
        path = Path(folder)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be made: {error.strerror}.", key="wallet") from error
        _check_folder(path)
        keys = StoredKeys(kind, SigningKey.generate(), SealingKey.generate())
        write_key_file(path / _KEY_FILE, keys, passphrase=passphrase)
        wallet = cls(path, passphrase)
        wallet._keys = keys
        wallet._change(lambda content: content)
        return wallet

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, passphrase: Passphrase | None = None) -> Wallet:
        """Open a wallet; its key is read when it is needed first.

        Raises:
            ConfigurationError: there is no wallet, or others can open it.
            MalformedError: its content is not what the format says.
        """
        path = Path(folder)
        if not (path / _KEY_FILE).exists():
            raise ConfigurationError(
                f"{path} holds no wallet.", key="wallet", remedy="Make one with: permslip guardian link."
            )
        _check_folder(path)
        wallet = cls(path, passphrase)
        wallet._content = wallet._read()
        return wallet

    @property
    def keys(self) -> StoredKeys:
        """The guardian's keys.

        Raises:
            KeyFileError: the key file cannot be used.
        """
        if self._keys is None:
            self._keys = read_key_file(self.folder / _KEY_FILE, passphrase=self._passphrase)
        return self._keys

    @property
    def public(self) -> PublicKey:
        """The guardian's public key, as the key file says; asks for no passphrase."""
        return describe_key_file(self.folder / _KEY_FILE).public

    @property
    def slices(self) -> tuple[LinkedSlice, ...]:
        """What was linked, in that order."""
        return self._content.slices

    @property
    def grants(self) -> tuple[GivenGrant, ...]:
        """What was signed here, in that order."""
        return self._content.grants

    @property
    def learners(self) -> tuple[str, ...]:
        """The learners' names, in the order in which they were linked first."""
        return tuple(dict.fromkeys(each.learner for each in self._content.slices))

    def of_learner(self, learner: str) -> tuple[LinkedSlice, ...]:
        """The slices of one learner.

        Raises:
            MalformedError: nobody of that name was linked.
        """
        found = tuple(each for each in self.slices if each.learner.casefold() == learner.casefold())
        if not found:
            known = ", ".join(self.learners) or "nobody yet"
            raise MalformedError(
                f"nobody called {learner!r} was linked.", field="learner", remedy=f"Linked are: {known}."
            )
        return found

    def add_slice(self, linked: LinkedSlice) -> None:
        """Keep a slice; one that was linked before is replaced."""

        def added(content: _Content) -> _Content:
            others = [each for each in content.slices if (each.node, each.handle) != (linked.node, linked.handle)]
            return replace(content, slices=(*others, linked))

        self._change(added)

    def add_grants(self, grants: Iterable[GivenGrant]) -> None:
        """Keep what was signed; a grant that is known is replaced."""
        new = {each.grant_id: each for each in grants}

        def added(content: _Content) -> _Content:
            others = [each for each in content.grants if each.grant_id not in new]
            return replace(content, grants=(*others, *new.values()))

        self._change(added)

    def mark_revoked(self, grant_ids: Iterable[bytes]) -> None:
        """Remember that the nodes confirmed the end of these grants."""
        ended = set(grant_ids)

        def marked(content: _Content) -> _Content:
            grants = (replace(each, revoked=each.revoked or each.grant_id in ended) for each in content.grants)
            return replace(content, grants=tuple(grants))

        self._change(marked)

    def broker_seq(self, root: bytes) -> int:
        """The highest number of a certificate that this broker has shown; 0 where none was seen.

        Raises:
            MalformedError: the file that remembers it is not what the format says.
        """
        return self._read_brokers().get(root.hex(), 0)

    def saw_broker_seq(self, root: bytes, seq: int) -> None:
        """Remember the number of a certificate, if it is higher: an earlier one is not believed any more."""
        with self._locked():
            known = self._read_brokers()
            known[root.hex()] = max(seq, known.get(root.hex(), 0))
            document = {"version": _VERSION, "brokers": known}
            _write_whole(self.folder / _BROKERS_FILE, json.dumps(document, indent=1).encode())

    # ------------------------------------------------------------------------------------------ on disk

    def _change(self, change: Callable[[_Content], _Content]) -> None:
        with self._locked():
            path = self.folder / _CONTENT_FILE
            self._content = change(self._read() if path.exists() else _Content())
            document = {
                "version": _VERSION,
                "slices": [_document(each) for each in self._content.slices],
                "grants": [_document(each) for each in self._content.grants],
            }
            _write_whole(path, json.dumps(document, indent=1, ensure_ascii=False).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read_brokers(self) -> dict[str, int]:
        path = self.folder / _BROKERS_FILE
        if not path.exists():
            return {}
        brokers = _read_document(path).get("brokers")
        if not isinstance(brokers, dict) or not all(type(each) is int for each in brokers.values()):
            raise MalformedError("expected numbers of certificates.", field=f"{path}: brokers", remedy=_RESTORE)
        return brokers

    def _read(self) -> _Content:
        path = self.folder / _CONTENT_FILE
        if not path.exists():
            return _Content()
        document = _read_document(path)
        if set(document) != {"version", "slices", "grants"}:
            raise MalformedError("expected version, slices and grants.", field=str(path), remedy=_RESTORE)
        slices = _parsed(LinkedSlice, document["slices"], f"{path}: slices")
        return _Content(slices, _parsed(GivenGrant, document["grants"], f"{path}: grants"))


_RESTORE: Final = "Restore the folder from where you keep a copy, or link again."


def _check_folder(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConfigurationError(
            f"{path} is open to others, or not yours.", key="wallet", remedy=f"Make it yours alone: chmod 700 {path}"
        )


def _read_document(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
        document = json.loads(raw) if len(raw) <= _MAX_BYTES else None
    except OSError as error:
        raise MalformedError(f"cannot be read: {error.strerror}.", field=str(path)) from error
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise MalformedError(f"expected a wallet of version {_VERSION}.", field=str(path), remedy=_RESTORE)
    return document


def _write_whole(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(path)
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()
    except OSError as error:
        raise PermslipError(f"{path} cannot be written: {error.strerror}.", remedy="Free some space.") from error


def _document(each: LinkedSlice | GivenGrant) -> dict[str, Any]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(each).items()}


_TYPES: Final[dict[str, type]] = {"bytes": str, "str": str, "int": int, "bool": bool}


def _parsed(kind: type[E], rows: Any, where: str) -> tuple[E, ...]:
    if not isinstance(rows, list):
        raise MalformedError("expected a list.", field=where, remedy=_RESTORE)
    return tuple(_one(kind, row, f"{where}[{number}]") for number, row in enumerate(rows))


def _one(kind: type[E], row: Any, where: str) -> E:
    wanted = {each.name: str(each.type) for each in fields(kind)}
    if not isinstance(row, dict) or set(row) != set(wanted):
        raise MalformedError(f"expected {', '.join(wanted)}.", field=where, remedy=_RESTORE)
    values: dict[str, Any] = {}
    for name, value in row.items():
        if type(value) is not _TYPES[wanted[name]]:
            raise MalformedError(f"expected {wanted[name]}.", field=f"{where}.{name}", remedy=_RESTORE)
        values[name] = _unhexed(value, f"{where}.{name}") if wanted[name] == "bytes" else value
    return kind(**values)


def _unhexed(value: Any, field: str) -> bytes:
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise MalformedError("expected hexadecimal.", field=field, remedy=_RESTORE) from None
