"""Which keys the keepers of ledgers and the witnesses had at a time, by the statements that a bundle holds.

Rules:

- Only what is proved counts: admissions and suspensions by the pinned operator, certificates by their own root.
- As of a time: the certificate with the highest number among those made until then, and not of a suspended node.
- The broker's root is pinned; it is admitted by nobody.

Example::

    keepers = Keepers.of(bundle, trust)
    cert = keepers.cert(node_root, at=fetched_at)
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.auditing.bundle import Bundle
from permslip.auditing.results import Trust
from permslip.errors import PermslipError
from permslip.quantities import Millis
from permslip.standing import Standing, check_key_cert
from permslip.statements import Signed

__all__ = ["Keepers"]

_KINDS: Final = (st.ADMISSION, st.SUSPENSION, st.KEY_CERT)


class Keepers:
    """What the operator and the roots said of organizations."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._words: dict[bytes, list[Signed[Any]]] = defaultdict(list)

    @classmethod
    def of(cls, bundle: Bundle, trust: Trust) -> Keepers:
        """Read and verify the admissions, suspensions and certificates of a bundle; what does not hold is left out."""
        keepers = cls(trust)
        rows = bundle.db.execute(
            "SELECT envelope, kind FROM statement WHERE kind IN ('admission', 'suspension', 'key-cert')"
        )
        for envelope, name in rows:
            kind = next(each for each in _KINDS if each.name == name)
            try:
                keepers._take(st.verify(kind, st.parse_envelope(envelope), federation=trust.federation))
            except PermslipError:
                continue  # verifying the statements says so
        for words in keepers._words.values():
            words.sort(key=lambda each: (each.payload.created_at, each.id))
        return keepers

    def standing(self, root: bytes, *, at: int) -> Standing:
        """Where an organization stood at a time, UTC milliseconds."""
        standing = Standing(root)
        for word in self._words.get(root, ()):
            if word.payload.created_at > at:
                break
            if word.kind is st.ADMISSION:
                standing = standing.admitted(word)
            elif word.kind is st.SUSPENSION:
                standing = standing.suspended(word)
            else:
                standing = standing.certified(word)
        return standing

    def cert(self, root: bytes, *, at: int) -> pb.KeyCert | None:
        """The certificate that counted at a time; None for a root that is not the broker's, nor an admitted node's."""
        standing = self.standing(root, at=at)
        is_known = root == self._trust.broker_root or standing.is_admitted(pb.PRINCIPAL_KIND_NODE, Millis(at))
        if standing.cert is None or not is_known or standing.cert.payload.valid_until <= at:
            return None
        return standing.cert.payload

    def nodes(self, *, at: int) -> list[bytes]:
        """The roots of the nodes that were admitted and certified at a time."""
        return [root for root in self._words if root != self._trust.broker_root and self.cert(root, at=at) is not None]

    def _take(self, signed: Signed[Any]) -> None:
        payload = signed.payload
        if signed.kind is st.KEY_CERT:
            check_key_cert(payload)
        elif payload.signer.root != self._trust.operator or payload.signer.key != self._trust.operator:
            return
        self._words[payload.root].append(signed)
