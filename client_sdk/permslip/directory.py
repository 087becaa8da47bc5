"""The directory: which organizations a client believes in, and with which keys.

A broker hands out admissions, suspensions and key certificates; it can make none of them. The client pins the key of
the federation's operator: an organization is what the operator admitted, and its online key is what its own root
certified.

Rules:

- Nothing enters without a signature: admissions and suspensions by the pinned operator, certificates by their root.
- What was once known is not undone by something older: the certificate with the highest ``seq`` counts, a suspension
  stands until a newer admission. So a broker cannot bring back a replaced key by presenting its old certificate.
- A broker can withhold what is new. What it can gain by that ends with the certificate's own ``valid_until``.

Example::

    directory = Directory(federation="fed.example", operator=operator)
    directory.add(entry)
    directory.check_signer(opening.signer, kind=pb.PRINCIPAL_KIND_NODE, at=now)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from permslip import statements as st
from permslip._pb.permslip.v1 import session_pb2, statement_pb2 as pb
from permslip.audit_scope import scope_of
from permslip.dsse import SignedCache
from permslip.errors import AuthorityError, KeyRejectedError
from permslip.keys import did_text, parse_sealing_key
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.standing import Standing, check_key_cert, key_reason
from permslip.statements import Signed

__all__ = ["Directory", "Organization"]

_REMEMBERED: Final = 8192  # signatures that are not checked again at every refresh


@dataclass(frozen=True, slots=True)
class Organization:
    """One admitted organization, as a person sees it.

    Attributes:
        root: its root key, which grants and slices name.
        name: its public name, from the admission.
        kind: which kind of principal.
        agreement_id: of its data agreement.
        suspended: whether the operator suspended it.
        attached: for a node, whether the broker says it is connected now; nobody signed this.
        certified: whether it has registered an online key.
        audit_scope: for an auditor, what it may see; None for others.
    """

    root: bytes
    name: str
    kind: pb.PrincipalKind.ValueType
    agreement_id: str
    suspended: bool
    attached: bool
    certified: bool
    audit_scope: pb.AuditScope | None = None

    @property
    def did(self) -> str:
        """The root key's name, ``did:key:z6Mk…``."""
        return did_text(self.root)

    @property
    def kind_name(self) -> str:
        """The kind's name, e.g. ``provider``."""
        return pb.PrincipalKind.Name(self.kind).removeprefix("PRINCIPAL_KIND_").lower()


class Directory:
    """What a client has verified of the federation's organizations.

    Args:
        federation: its name; statements of others are refused.
        operator: the pinned key of the federation's operator.
    """

    def __init__(self, *, federation: str, operator: bytes) -> None:
        self._federation, self._operator = federation, operator
        self._cache = SignedCache(_REMEMBERED)
        self._standings: dict[bytes, Standing] = {}
        self._attached: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._standings)

    def add(self, entry: session_pb2.DirectoryEntry) -> Organization:
        """Take what a broker says of one organization, so far as it is proved and not older than what is known.

        Raises:
            VerificationError: not by the operator, or the certificate not by the organization's root.
            MalformedError: not the statements that were expected.
        """
        # (1) the admission says whom the entry is about
        admission = self._by_operator(st.ADMISSION, entry.admission)
        root = admission.payload.root
        standing = self._standings.get(root, Standing(root))
        if _is_newer(admission, standing):
            standing = standing.admitted(admission)
        # (2) a suspension that is newer than the admission
        if entry.HasField("suspension"):
            suspension = self._by_operator(st.SUSPENSION, entry.suspension)
            if suspension.payload.root != root:
                raise AuthorityError("directory: the suspension is about another organization.")
            if _is_newer(suspension, standing):
                standing = standing.suspended(suspension)
        # (3) the certificate; one that is not newer changes nothing
        if entry.HasField("key_cert"):
            cert = st.verify(st.KEY_CERT, entry.key_cert, federation=self._federation, cache=self._cache)
            if cert.payload.root != root:
                raise AuthorityError("directory: the certificate is another organization's.")
            check_key_cert(cert.payload)
            standing = standing.certified(cert)
        self._standings[root] = standing
        self._attached.discard(root)
        if entry.attached:
            self._attached.add(root)
        return self._organization(standing, admission)

    def knows(self, signer: pb.Signer) -> bool:
        """Whether ``signer.key`` is the current certified key of ``signer.root``, as far as is known here."""
        cert = self._cert(signer.root)
        return cert is not None and cert.payload.signing_key == signer.key

    def check_signer(self, signer: pb.Signer, *, kind: pb.PrincipalKind.ValueType, at: Millis) -> None:
        """Check that an organization of this kind signs with its current key.

        Raises:
            KeyRejectedError: not admitted as ``kind``, suspended, or another key than its current one.
        """
        standing = self._standings.get(signer.root)
        if standing is None or not standing.is_admitted(kind, at):
            raise KeyRejectedError(
                f"{did_text(signer.root)} is not admitted to the federation as what it acts as, or is suspended.",
                remedy="Ask the federation's operator.",
            )
        reason = key_reason(standing, signer, at)
        if reason != Reason.ALLOWED:
            raise KeyRejectedError(f"{self.name(signer.root)}: {reason.meaning}", remedy=reason.remedy)

    def sealing_key(self, root: bytes, *, kind: pb.PrincipalKind.ValueType, at: Millis) -> bytes:
        """The key to which messages for an organization are sealed.

        Raises:
            KeyRejectedError: as :meth:`check_signer`.
        """
        cert = self._cert(root)
        if cert is None:
            reason = Reason.KEY_NOT_CERTIFIED
            raise KeyRejectedError(f"{self.name(root)} has registered no key.", remedy=reason.remedy)
        self.check_signer(pb.Signer(root=root, key=cert.payload.signing_key), kind=kind, at=at)
        return parse_sealing_key(cert.payload.sealing_key, "key-cert.sealing_key")

    def cert(self, root: bytes) -> Signed[pb.KeyCert] | None:
        """An organization's newest certificate, as far as is known here; None for one that is suspended."""
        standing = self._standings.get(root)
        return None if standing is None or standing.suspension is not None else standing.cert

    def name(self, root: bytes) -> str:
        """An organization's public name; the key's own name where nothing is known."""
        standing = self._standings.get(root)
        if standing is None or standing.admission is None:
            return did_text(root)
        return standing.admission.payload.name

    def organization(self, root: bytes) -> Organization | None:
        """What is known of one organization."""
        standing = self._standings.get(root)
        if standing is None or standing.admission is None:
            return None
        return self._organization(standing, standing.admission)

    def organizations(self) -> Iterator[Organization]:
        """All that are known, by name."""
        known = [each for root in self._standings if (each := self.organization(root)) is not None]
        yield from sorted(known, key=lambda each: (each.name, each.root))

    def _organization(self, standing: Standing, admission: Signed[pb.Admission]) -> Organization:
        return Organization(
            root=standing.root,
            name=admission.payload.name,
            kind=admission.payload.kind,
            agreement_id=admission.payload.agreement_id,
            suspended=standing.suspension is not None,
            attached=standing.root in self._attached,
            certified=standing.cert is not None,
            audit_scope=scope_of(standing) if admission.payload.kind == pb.PRINCIPAL_KIND_AUDITOR else None,
        )

    def _cert(self, root: bytes) -> Signed[pb.KeyCert] | None:
        standing = self._standings.get(root)
        return standing.cert if standing is not None else None

    def _by_operator(self, kind: st.Kind[st.P], envelope: pb.Envelope) -> Signed[st.P]:
        signed = st.verify(kind, envelope, federation=self._federation, cache=self._cache)
        signer = signed.payload.signer
        if signer.root != self._operator or signer.key != self._operator:
            raise AuthorityError(
                f"{kind.name}: not signed by the federation's operator.",
                remedy="Check the operator's key in the configuration.",
            )
        return signed


def _is_newer(signed: Signed[pb.Admission] | Signed[pb.Suspension], standing: Standing) -> bool:
    """Newer than the last admission and the last suspension, as a ledger would demand."""
    known = (standing.admission, standing.suspension)
    return all(each is None or signed.payload.created_at > each.payload.created_at for each in known)
