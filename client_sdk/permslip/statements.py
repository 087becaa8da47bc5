"""Statements: payloads that must be believed, in signed envelopes.

Rules (SPEC.md §2):

- Signed bytes are kept as received. Nothing is re-serialized to be checked or stored.
- Decoding is strict: the deterministic re-serialization, after discarding unknown fields, equals the received bytes;
  every bound of the contract holds (:mod:`permslip.bounds`).
- Exactly the keys that the payload names have signed, each once, in ascending order (:mod:`permslip.dsse`).
- ``id = SHA-256(PAE(type, payload))``.

An ``Envelope`` message is unverified bytes. :func:`verify` turns it into :class:`Signed`, or raises; :func:`restore`
reads back what one's own store recorded after that. What a signature does *not* say (that the key is certified, that
the signer may do this) is decided in :mod:`permslip.standing`, :mod:`permslip.facts` and :mod:`permslip.decision`.

Example::

    >>> from permslip._pb.permslip.v1 import statement_pb2 as pb
    >>> from permslip.keys import SigningKey
    >>> key = SigningKey.from_seed(bytes(32))
    >>> me = pb.Signer(root=key.public.raw, key=key.public.raw)
    >>> gone = pb.Revocation(federation="fed.example", nonce=bytes(15) + b"1", created_at=1_790_000_000_000, signer=me,
    ...     target_id=b"t" * 32, node=b"n" * 32, role=pb.REVOKER_ROLE_GUARDIAN)
    >>> signed = sign(REVOCATION, gone, [key])
    >>> verify(REVOCATION, signed.envelope, federation="fed.example").payload.target_id == b"t" * 32
    True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from permslip import dsse
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.bounds import check_bounds, check_strictly
from permslip.errors import MalformedError, SignatureError
from permslip.keys import SigningKey
from permslip.quantities import StatementId

__all__ = [
    "ACCESS_REQUEST",
    "ACKNOWLEDGEMENT",
    "ADMISSION",
    "CHAIN_END",
    "CONTRIBUTION",
    "DELEGATION",
    "DEVICE_KEY",
    "ENDORSEMENT",
    "GRANT",
    "HELLO",
    "KEY_CERT",
    "KINDS",
    "LINK_REQUEST",
    "LINK_RESPONSE",
    "MANIFEST",
    "MAX_ENVELOPE",
    "MAX_PAYLOAD",
    "OBJECTION",
    "OPENING",
    "QUERY",
    "RECEIPT",
    "REVOCATION",
    "SUSPENSION",
    "TICK",
    "WITNESS_SET",
    "Kind",
    "Signed",
    "decode_strictly",
    "kind_of",
    "parse_envelope",
    "restore",
    "sign",
    "verify",
]

MAX_PAYLOAD: Final = 65536
# A greatest payload with its type and sixteen signatures, and their framing.
MAX_ENVELOPE: Final = MAX_PAYLOAD + 2048

M = TypeVar("M", bound=Message)
# The statements' payloads; every one has federation, nonce and created_at.
P = TypeVar("P", bound=Any)


@dataclass(frozen=True, slots=True, eq=False)
class Kind(Generic[P]):
    """One kind of statement.

    Attributes:
        name: kebab-case, as in the payload type.
        message: the payload's message class.
        required: the keys that must sign, as the payload names them.
        payload_type: ``application/vnd.permslip.<name>.v1+protobuf``.
    """

    name: str
    message: type[P]
    required: Callable[[P], Sequence[bytes]]
    payload_type: str

    def __repr__(self) -> str:
        return f"<Kind {self.name}>"


@dataclass(frozen=True, slots=True, repr=False)
class Signed(Generic[P]):
    """A verified statement: the signatures are those of exactly the keys its payload names.

    Attributes:
        id: SHA-256 of the signed bytes.
        kind: which statement it is.
        payload: the parsed payload. Read only: a change would not change the signed bytes.
        envelope: the envelope with the received payload bytes.
    """

    id: StatementId
    kind: Kind[P]
    payload: P
    envelope: pb.Envelope

    def __repr__(self) -> str:
        return f"<Signed {self.kind.name} {self.id.hex()}>"

    @property
    def raw(self) -> bytes:
        """The serialized envelope, as it is stored and logged."""
        return self.envelope.SerializeToString(deterministic=True)

    @property
    def sha256(self) -> bytes:
        """Digest of :attr:`raw`: unlike :attr:`id` it covers the signatures too."""
        return sha256(self.raw).digest()


def _signer(payload: Any) -> Sequence[bytes]:
    return (payload.signer.key,)


def _granted_by(payload: pb.Grant) -> Sequence[bytes]:
    return payload.granted_by


def _root(payload: pb.KeyCert) -> Sequence[bytes]:
    return (payload.root,)


def _device(payload: pb.DeviceKey) -> Sequence[bytes]:
    if payload.retired or payload.device == payload.signer.key:
        return (payload.signer.key,)
    return (payload.signer.key, payload.device)


def _witness_set(payload: pb.WitnessSet) -> Sequence[bytes]:
    return (payload.signer.key, *payload.old_witnesses)


def _kind(name: str, message: type[P], required: Callable[[P], Sequence[bytes]] = _signer) -> Kind[P]:
    return Kind(name, message, required, f"application/vnd.permslip.{name}.v1+protobuf")


GRANT: Final = _kind("grant", pb.Grant, _granted_by)
ENDORSEMENT: Final = _kind("endorsement", pb.Endorsement)
OBJECTION: Final = _kind("objection", pb.Objection)
DELEGATION: Final = _kind("delegation", pb.Delegation)
REVOCATION: Final = _kind("revocation", pb.Revocation)
ACKNOWLEDGEMENT: Final = _kind("acknowledgement", pb.Acknowledgement)
ACCESS_REQUEST: Final = _kind("access-request", pb.AccessRequest)
QUERY: Final = _kind("query", pb.Query)
CONTRIBUTION: Final = _kind("contribution", pb.Contribution)
OPENING: Final = _kind("opening", pb.Opening)
MANIFEST: Final = _kind("manifest", pb.Manifest)
RECEIPT: Final = _kind("receipt", pb.Receipt)
KEY_CERT: Final = _kind("key-cert", pb.KeyCert, _root)
DEVICE_KEY: Final = _kind("device-key", pb.DeviceKey, _device)
ADMISSION: Final = _kind("admission", pb.Admission)
SUSPENSION: Final = _kind("suspension", pb.Suspension)
WITNESS_SET: Final = _kind("witness-set", pb.WitnessSet, _witness_set)
HELLO: Final = _kind("hello", pb.Hello)
TICK: Final = _kind("tick", pb.Tick)
LINK_REQUEST: Final = _kind("link-request", pb.LinkRequest)
LINK_RESPONSE: Final = _kind("link-response", pb.LinkResponse)
CHAIN_END: Final = _kind("chain-end", pb.ChainEnd)

_ALL: Final[tuple[Kind[Any], ...]] = (
    GRANT,
    ENDORSEMENT,
    OBJECTION,
    DELEGATION,
    REVOCATION,
    ACKNOWLEDGEMENT,
    ACCESS_REQUEST,
    QUERY,
    CONTRIBUTION,
    OPENING,
    MANIFEST,
    RECEIPT,
    KEY_CERT,
    DEVICE_KEY,
    ADMISSION,
    SUSPENSION,
    WITNESS_SET,
    HELLO,
    TICK,
    LINK_REQUEST,
    LINK_RESPONSE,
    CHAIN_END,
)
# Every kind by its payload type.
KINDS: Final[dict[str, Kind[Any]]] = {kind.payload_type: kind for kind in _ALL}


def sign(kind: Kind[P], payload: P, keys: Sequence[SigningKey]) -> Signed[P]:
    """Sign a payload with all the keys it names.

    Args:
        kind: which statement.
        payload: complete; nothing is filled in. It must not be changed afterwards.
        keys: private keys of exactly the keys that the payload names.

    Raises:
        MalformedError: the payload breaks a bound of the contract.
        SignatureError: ``keys`` are not exactly the named ones.
    """
    check_strictly(payload, kind.name)
    raw = payload.SerializeToString(deterministic=True)
    _check_size(raw, kind.name, MAX_PAYLOAD)
    signatures = dsse.sign(kind.payload_type, raw, keys)
    if [key for key, _ in signatures] != sorted(kind.required(payload)):
        raise SignatureError(
            f"{kind.name}: the keys given are not those that the payload names.",
            remedy="Sign with exactly the keys in granted_by or signer.key.",
        )
    envelope = pb.Envelope(
        payload_type=kind.payload_type,
        payload=raw,
        signatures=[pb.Signature(key=key, signature=signature) for key, signature in signatures],
    )
    return Signed(dsse.statement_id(kind.payload_type, raw), kind, payload, envelope)


def verify(
    kind: Kind[P], envelope: pb.Envelope, *, federation: str, cache: dsse.SignedCache | None = None
) -> Signed[P]:
    """Believe an envelope, or raise.

    Args:
        kind: which statement is expected.
        envelope: as received; a copy is kept, so that it cannot be changed, nor keep a whole batch in memory.
        federation: the only federation whose statements count here.
        cache: remembers signatures that were verified before.

    Raises:
        MalformedError: not a strictly encoded envelope and payload of that kind, or of another federation.
        SignatureError: signatures are not exactly those of the keys the payload names.
        KeyRejectedError: a named key must not be used.
    """
    # (1) the envelope is within its bounds, holds nothing unknown, and is of the expected type
    check_bounds(envelope, "envelope")
    kept = pb.Envelope()
    kept.CopyFrom(envelope)
    kept.DiscardUnknownFields()
    if kept.ByteSize() != envelope.ByteSize():
        raise MalformedError(
            "expected no unknown fields.", field="envelope", remedy="Is the sender's software newer than this one?"
        )
    if envelope.payload_type != kind.payload_type:
        raise MalformedError(
            f"expected {kind.payload_type!r}, got {envelope.payload_type!r}.", field="envelope.payload_type"
        )
    # (2) the payload is strictly encoded and within its bounds
    payload = decode_strictly(kind.message, kept.payload, kind.name)
    # (3) it belongs to this federation
    if payload.federation != federation:
        raise MalformedError(
            f"expected {federation!r}, got {payload.federation!r}.",
            field=f"{kind.name}.federation",
            remedy="Use the keys and grants of this federation.",
        )
    # (4) exactly the named keys signed it
    identifier = dsse.verify_signatures(
        kind.payload_type,
        kept.payload,
        [(each.key, each.signature) for each in kept.signatures],
        kind.required(payload),
        cache=cache,
    )
    return Signed(identifier, kind, payload, kept)


def restore(kind: Kind[P], identifier: bytes, raw: bytes) -> Signed[P]:
    """Read back an envelope that this very process's store recorded after :func:`verify` had believed it.

    Args:
        kind: which statement it was recorded as.
        identifier: the id it was recorded under.
        raw: :attr:`Signed.raw`.

    Raises:
        MalformedError: the stored bytes are not those that were recorded.
    """
    envelope = parse_envelope(raw, f"stored {kind.name}")
    recorded_as = dsse.statement_id(kind.payload_type, envelope.payload)
    if envelope.payload_type != kind.payload_type or recorded_as != identifier:
        raise MalformedError(
            "the stored bytes are not those of the id they were recorded under.",
            field=f"stored {kind.name}",
            remedy="The database was damaged or changed by hand: restore it from a backup.",
        )
    payload = decode_strictly(kind.message, envelope.payload, kind.name)
    return Signed(StatementId(identifier), kind, payload, envelope)


def kind_of(envelope: pb.Envelope, among: Sequence[Kind[Any]] = _ALL) -> Kind[Any]:
    """Which kind an (unverified) envelope claims to hold.

    Raises:
        MalformedError: none of ``among``.
    """
    kind = KINDS.get(envelope.payload_type)
    if kind is None or kind not in among:
        expected = ", ".join(each.name for each in among)
        raise MalformedError(
            f"expected one of: {expected}; got {envelope.payload_type[:96]!r}.", field="envelope.payload_type"
        )
    return kind


def parse_envelope(raw: bytes, field: str = "envelope") -> pb.Envelope:
    """Parse a serialized envelope strictly. What comes out is still unverified.

    Raises:
        MalformedError: not one, or not in its one encoding.
    """
    return decode_strictly(pb.Envelope, raw, field, max_bytes=MAX_ENVELOPE)


def decode_strictly(message: type[M], raw: bytes, field: str, *, max_bytes: int = MAX_PAYLOAD) -> M:
    """Parse bytes of which there is exactly one encoding.

    Args:
        message: the class of what is expected.
        raw: as received.
        field: what it is called in errors.
        max_bytes: greatest length.

    Raises:
        MalformedError: not parseable, unknown fields, another encoding than the deterministic one, or out of bounds.
    """
    _check_size(raw, field, max_bytes)
    try:
        parsed = message.FromString(raw)
    except (DecodeError, RecursionError):
        raise MalformedError(f"expected a {message.DESCRIPTOR.name} message.", field=field) from None
    parsed.DiscardUnknownFields()
    if parsed.SerializeToString(deterministic=True) != raw:
        raise MalformedError(
            "expected the one deterministic encoding, without unknown fields.",
            field=field,
            remedy="Is the sender's software newer than this one?",
        )
    check_strictly(parsed, field)
    return parsed


def _check_size(raw: bytes, field: str, max_bytes: int) -> None:
    if len(raw) > max_bytes:
        raise MalformedError(f"expected at most {max_bytes} bytes, got {len(raw)}.", field=field)
