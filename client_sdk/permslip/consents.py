"""Consents: what a parent signs in one tap, one grant for each school.

Everything here is pure: terms, keys, certificates and ``now`` go in, signed statements come out. Depositing them is the
business of :mod:`permslip.client`.

Rules (SPEC.md §5):

- One grant for each slice, with a nonce, salts and a notice of its own: nothing in one grant tells its school that
  another school exists.
- What only node and grantee may read (the purpose in words, the relationship, the grantee's own reference for the
  learner) is a ``GrantPrivate``: deterministic bytes, sealed once to each of them with the context
  ``"grant-private" ‖ node root ‖ handle ‖ grantee``, and bound to the grant by ``salted_digest(salt, bytes)``.
- A grant begins a minute before it is signed, unless its beginning is given: clocks differ, and a school decides by its
  own.
- Where a school's rule asks for several guardians, the first signs with the others named (:func:`sign_in_part`), and
  each of the others adds a signature to the very same bytes (:func:`cosign`).

Example::

    terms = ConsentTerms(grantee, ("transcript",), pb.PURPOSE_TUTORING, "Tutoring in reading", expires_at)
    grant = make_grant(terms, slice, federation="fed.example", granted_by=[key], names=names,
                       recipients=[node_sealing_key, grantee_sealing_key], now=now)
    signed = sign(GRANT, grant, [key])
    open_private(signed.payload, my_sealing_key).reference
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from permslip import dsse, statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.bounds import check_strictly
from permslip.errors import MalformedError, SealError, SignatureError
from permslip.grants import check_grant
from permslip.keys import SealingKey, SigningKey
from permslip.notices import TEMPLATE, VERSION, render
from permslip.quantities import Millis
from permslip.sealing import SALT_BYTES, open_sealed, salted_digest, seal
from permslip.statements import Signed

__all__ = [
    "PURPOSES",
    "ConsentTerms",
    "cosign",
    "make_grant",
    "make_revocation",
    "open_private",
    "purpose_code",
    "sign_in_part",
]

# The purposes by the names that people type and read.
PURPOSES: Final[dict[str, pb.Purpose.ValueType]] = {
    name.removeprefix("PURPOSE_").lower(): number for name, number in pb.Purpose.items() if number
}
_CLOCK_ALLOWANCE: Final = 60_000
_CONTEXT: Final = b"grant-private"


@dataclass(frozen=True, slots=True)
class ConsentTerms:
    """What a parent decides, the same for every school of one consent.

    Attributes:
        grantee: root key of the provider, or the key of the guardian or learner herself.
        sections: section paths.
        purpose: its code.
        purpose_text: the words of whoever asks; only node and grantee can read them.
        expires_at: usable until before this time, UTC milliseconds.
        not_before: usable from; 0 is «from now».
        actions: what may be done.
        records_from, records_until: only records of these days, YYYY-MM-DD; empty is unbounded.
        max_uses: 0 is unlimited.
        onward_parties: root keys to whom alone it may be passed on.
        delegation_depth: how often it may be passed on; more than 0 exactly where there are onward parties.
        erase_within_days: 0 says nothing.
        relationship: the signer's, in her words.
        reference: the grantee's own for the learner.
        language: of the notice, ``en`` or ``es``.
    """

    grantee: bytes
    sections: tuple[str, ...]
    purpose: pb.Purpose.ValueType
    purpose_text: str
    expires_at: int
    not_before: int = 0
    actions: tuple[pb.Action.ValueType, ...] = (pb.ACTION_READ,)
    records_from: str = ""
    records_until: str = ""
    max_uses: int = 0
    onward_parties: tuple[bytes, ...] = ()
    delegation_depth: int = 0
    erase_within_days: int = 0
    relationship: str = ""
    reference: str = ""
    language: str = "en"


def purpose_code(name: str) -> pb.Purpose.ValueType:
    """The code of a purpose's name, e.g. ``tutoring``.

    Raises:
        MalformedError: there is no such purpose.
    """
    code = PURPOSES.get(name.lower())
    if code is None:
        raise MalformedError(
            f"there is no purpose {name!r}.", field="grant.purpose", remedy=f"Choose one of: {', '.join(PURPOSES)}."
        )
    return code


def make_grant(
    terms: ConsentTerms,
    place: pb.Slice,
    *,
    federation: str,
    granted_by: Sequence[bytes],
    names: Mapping[bytes, str],
    recipients: Sequence[bytes],
    now: Millis,
    supersedes: Sequence[bytes] = (),
) -> pb.Grant:
    """The payload of one grant, complete and checked, ready to be signed by every key in ``granted_by``.

    Args:
        terms: what the parent decided.
        place: the slice.
        federation: its name.
        granted_by: keys of those who will sign.
        names: root key → public name, for the notice.
        recipients: sealing keys of the node and of the grantee.
        now: the signing device's clock.
        supersedes: ids of grants on the same slice that end when this one takes effect.

    Raises:
        MalformedError: names the field that is missing or wrong.
        KeyRejectedError: a recipient's sealing key must not be used.
    """
    grant = pb.Grant(
        federation=federation,
        nonce=os.urandom(16),
        created_at=now,
        granted_by=sorted(set(granted_by)),
        slice=place,
        grantee=terms.grantee,
        actions=sorted(set(terms.actions)),
        sections=sorted(set(terms.sections)),
        purpose=terms.purpose,
        not_before=terms.not_before or now - _CLOCK_ALLOWANCE,
        expires_at=terms.expires_at,
        records_from=terms.records_from,
        records_until=terms.records_until,
        max_uses=terms.max_uses,
        delegation_depth=terms.delegation_depth,
        onward_parties=sorted(set(terms.onward_parties)),
        erase_within_days=terms.erase_within_days,
        supersedes=sorted(set(supersedes)),
    )
    private = pb.GrantPrivate(
        salt=os.urandom(SALT_BYTES),
        purpose_text=terms.purpose_text,
        relationship=terms.relationship,
        reference=terms.reference,
        notice_salt=os.urandom(SALT_BYTES),
    )
    check_strictly(private, "grant.private")
    raw = private.SerializeToString(deterministic=True)
    copies = [
        pb.SealedCopy(recipient=each, sealed=seal(each, raw, context=_context(grant)))
        for each in sorted(set(recipients))
    ]
    grant.private.CopyFrom(pb.SealedPrivate(salted_sha256=salted_digest(private.salt, raw), copies=copies))
    grant.notice.CopyFrom(
        pb.Notice(template=TEMPLATE, version=VERSION, language=terms.language, salted_sha256=bytes(32))
    )
    # Checked before its words are rendered, so that a missing field is named as such.
    check_strictly(grant, "grant")
    check_grant(grant)
    notice = render(grant, purpose_text=terms.purpose_text, names=names, language=terms.language)
    grant.notice.salted_sha256 = notice.digest(private.notice_salt)
    return grant


def open_private(grant: pb.Grant, key: SealingKey) -> pb.GrantPrivate:
    """Open what was sealed to node and grantee, and check that it belongs to this grant.

    Args:
        grant: verified.
        key: the reader's sealing pair.

    Raises:
        SealError: there is no copy for this key, it was altered, or it belongs to another grant.
        MalformedError: it is not what the format says.
    """
    copy = next((each for each in grant.private.copies if each.recipient == key.public), None)
    if copy is None:
        raise SealError(
            "the grant's private part was not sealed to this key.",
            remedy="Open it with the key that was certified when the consent was given.",
        )
    raw = open_sealed(key, copy.sealed, context=_context(grant))
    private = st.decode_strictly(pb.GrantPrivate, raw, "grant.private")
    if salted_digest(private.salt, raw) != grant.private.salted_sha256:
        raise SealError("the private part is not the one that the parent signed.")
    return private


def make_revocation(
    target_id: bytes,
    node: bytes,
    *,
    federation: str,
    signer: pb.Signer,
    role: pb.RevokerRole.ValueType,
    key: SigningKey,
    now: Millis,
) -> Signed[pb.Revocation]:
    """A signed revocation of one grant or delegation.

    Args:
        target_id: of the grant or delegation.
        node: root key of the node that must act on it.
        federation: its name.
        signer: who revokes; for a person root and key are the same.
        role: as what she may.
        key: private key of ``signer.key``.
        now: the signing device's clock.
    """
    payload = pb.Revocation(
        federation=federation,
        nonce=os.urandom(16),
        created_at=now,
        signer=signer,
        target_id=target_id,
        node=node,
        role=role,
    )
    return st.sign(st.REVOCATION, payload, [key])


def sign_in_part(grant: pb.Grant, keys: Sequence[SigningKey]) -> pb.Envelope:
    """An envelope that some of those who must sign have signed; nobody believes it until all have.

    Raises:
        SignatureError: a key that the grant does not name.
    """
    check_strictly(grant, "grant")
    return _with_signatures(grant.SerializeToString(deterministic=True), grant, keys, ())


def cosign(envelope: pb.Envelope, key: SigningKey, *, federation: str) -> pb.Envelope:
    """Add one guardian's signature to a grant that others have signed, over the very same bytes.

    What it says is for the caller to show *before* this is called: ``decode_strictly(pb.Grant, envelope.payload, …)``.

    Raises:
        MalformedError: not a grant of this federation.
        SignatureError: the grant does not name this key, it has signed already, or an earlier signature does not hold.
    """
    if envelope.payload_type != st.GRANT.payload_type:
        raise MalformedError("expected a grant.", field="envelope.payload_type")
    grant = st.decode_strictly(pb.Grant, envelope.payload, "grant")
    if grant.federation != federation:
        raise MalformedError(f"expected {federation!r}, got {grant.federation!r}.", field="grant.federation")
    earlier = [(each.key, each.signature) for each in envelope.signatures]
    if earlier:
        dsse.verify_signatures(st.GRANT.payload_type, envelope.payload, earlier, [each for each, _ in earlier])
    return _with_signatures(envelope.payload, grant, [key], earlier)


def _with_signatures(
    raw: bytes, grant: pb.Grant, keys: Sequence[SigningKey], earlier: Sequence[tuple[bytes, bytes]]
) -> pb.Envelope:
    signatures = sorted([*earlier, *dsse.sign(st.GRANT.payload_type, raw, keys)])
    signers = [key for key, _ in signatures]
    if len(set(signers)) != len(signers) or not set(signers) <= set(grant.granted_by):
        raise SignatureError(
            "grant: a key signed twice, or one that granted_by does not name.",
            remedy="Each guardian that the grant names signs once.",
        )
    return pb.Envelope(
        payload_type=st.GRANT.payload_type,
        payload=raw,
        signatures=[pb.Signature(key=each, signature=signature) for each, signature in signatures],
    )


def _context(grant: pb.Grant) -> bytes:
    return _CONTEXT + grant.slice.node + grant.slice.handle + grant.grantee
