"""Where an organization stands in the federation: admitted, suspended, and with which online key.

Organizations have an offline root key. The root certifies one online signing and sealing key at a time (``KeyCert``);
the federation's operator admits and suspends roots (``Admission``, ``Suspension``). Persons have no standing: they
sign with their own keys, and nodes know them.

Rules (SPEC.md §4):

- Only the certificate with the highest ``seq`` counts. To end a lost key, its root signs a certificate with a higher
  number; there is no grace for the old one.
- A later admission replaces an earlier one and ends a suspension. What is not newer changes nothing.
- An organization never signs with its root directly: root and online key differ.
- A certificate names usable keys only: small-order points are refused here, not when somebody seals to them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import KeyRejectedError, MalformedError
from permslip.keys import PublicKey, parse_sealing_key
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.statements import Signed

__all__ = ["MAX_KEY_LIFETIME", "Standing", "check_key_cert", "key_reason"]

DAY: int = 86_400_000
# An online key lives for 400 days at most: a school year and time to be late.
MAX_KEY_LIFETIME: int = 400 * DAY


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one root key.

    Attributes:
        root: the organization.
        admission: the latest; None while it is not admitted.
        suspension: set while suspended.
        cert: the certificate with the highest ``seq``, if any.
    """

    root: bytes
    admission: Signed[pb.Admission] | None = None
    suspension: Signed[pb.Suspension] | None = None
    cert: Signed[pb.KeyCert] | None = None

    def admitted(self, admission: Signed[pb.Admission]) -> Standing:
        """The standing after an admission: it replaces the earlier one and ends a suspension; one that is not newer
        than either changes nothing."""
        if self._is_newer(admission):
            return replace(self, admission=admission, suspension=None)
        return self

    def suspended(self, suspension: Signed[pb.Suspension]) -> Standing:
        """The standing after a suspension; one that is not newer than the last word changes nothing."""
        return replace(self, suspension=suspension) if self._is_newer(suspension) else self

    def certified(self, cert: Signed[pb.KeyCert]) -> Standing:
        """The standing after a certificate; one that is not newer changes nothing."""
        if self.cert is not None and cert.payload.seq <= self.cert.payload.seq:
            return self
        return replace(self, cert=cert)

    def is_admitted(self, kind: pb.PrincipalKind.ValueType, at: Millis) -> bool:
        """Whether it is admitted as ``kind`` at that time and not suspended."""
        admission = self.admission
        if admission is None or admission.payload.kind != kind or self.suspension is not None:
            return False
        return not admission.payload.valid_until or at < admission.payload.valid_until

    def _is_newer(self, word: Signed[pb.Admission] | Signed[pb.Suspension]) -> bool:
        last = max((each.payload.created_at for each in (self.admission, self.suspension) if each), default=0)
        return word.payload.created_at > last


def check_key_cert(cert: pb.KeyCert) -> None:
    """Check what the bounds of the contract cannot say about a certificate.

    Raises:
        MalformedError: it ends before it begins or lives too long.
        KeyRejectedError: the online key is the root itself, or a key must not be used.
    """
    if not cert.created_at < cert.valid_until <= cert.created_at + MAX_KEY_LIFETIME:
        raise MalformedError(
            "expected an end after created_at and at most 400 days later.", field="key-cert.valid_until"
        )
    if cert.signing_key == cert.root:
        raise KeyRejectedError(
            "key-cert.signing_key: the root key itself.", remedy="Make an online key; keep the root offline."
        )
    PublicKey.parse(cert.signing_key, field="key-cert.signing_key")
    parse_sealing_key(cert.sealing_key, "key-cert.sealing_key")


def key_reason(standing: Standing | None, signer: pb.Signer, at: Millis) -> Reason:
    """Whether ``signer.key`` is the organization's current key at that time.

    Returns:
        ``ALLOWED``, ``KEY_NOT_CERTIFIED`` or ``KEY_EXPIRED``.
    """
    cert = standing.cert if standing is not None else None
    if cert is None or cert.payload.root != signer.root or cert.payload.signing_key != signer.key:
        return Reason.KEY_NOT_CERTIFIED
    if at >= cert.payload.valid_until:
        return Reason.KEY_EXPIRED
    return Reason.ALLOWED
