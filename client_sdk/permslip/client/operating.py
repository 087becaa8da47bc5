"""``AsyncOperatorClient``: the federation's operator admits and suspends organizations.

Example::

    async with AsyncOperatorClient(keys="operator.key", broker=…, broker_root=…, federation=…) as operator:
        await operator.admit("did:key:…", kind="node", name="Lincoln Elementary", agreement_id="NDPA-2026-17")
        await operator.register([cert])
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from permslip import statements as st
from permslip._pb.permslip.v1 import operator_pb2, operator_pb2_grpc, statement_pb2 as pb
from permslip.client.failures import error_of_refusal
from permslip.client.identity import KeySource, identify
from permslip.client.session import Session, system_clock
from permslip.client.settings import server_of
from permslip.client.timeouts import Timeout
from permslip.directory import Organization
from permslip.errors import ConfigurationError, MalformedError
from permslip.grant_views import time_text
from permslip.keyfile import Passphrase, PrincipalKind, StoredKeys, read_key_file
from permslip.keys import PublicKey, did_text
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.statements import Signed

__all__ = ["ORGANIZATIONS", "AsyncOperatorClient", "BrokerStatus", "NodeState", "make_admission", "make_suspension"]

# What can be admitted, by the names that people type.
ORGANIZATIONS: Final[dict[str, pb.PrincipalKind.ValueType]] = {
    "provider": pb.PRINCIPAL_KIND_PROVIDER,
    "node": pb.PRINCIPAL_KIND_NODE,
    "auditor": pb.PRINCIPAL_KIND_AUDITOR,
}


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node, as the broker sees it."""

    root: bytes
    name: str
    attached: bool
    last_tick_at: int
    pushes_held: int
    pushes_due: int


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """How the broker is; its own word."""

    ledger_size: int
    root_hash: bytes
    grants: int
    software_version: str
    started_at: int
    nodes: tuple[NodeState, ...]

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "ledger_size": self.ledger_size,
            "root_hash": self.root_hash.hex(),
            "grants": self.grants,
            "software_version": self.software_version,
            "started_at": time_text(self.started_at),
            "nodes": [
                {
                    "root": did_text(each.root),
                    "name": each.name,
                    "attached": each.attached,
                    "last_tick_at": time_text(each.last_tick_at) if each.last_tick_at else "",
                    "pushes_held": each.pushes_held,
                    "pushes_due": each.pushes_due,
                }
                for each in self.nodes
            ],
        }


class AsyncOperatorClient:
    """The operator's connection to a broker.

    Args:
        keys: the operator's keys, or the path of their file.
        broker, broker_root, federation, tls_ca, timeout, now, passphrase: as for
            :class:`~permslip.client.providing.AsyncClient`.
    """

    def __init__(
        self,
        *,
        broker: str,
        broker_root: str,
        federation: str,
        keys: KeySource,
        passphrase: Passphrase | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        timeout: Timeout | None = None,
        now: Callable[[], Millis] = system_clock,
    ) -> None:
        stored = keys if isinstance(keys, StoredKeys) else read_key_file(keys, passphrase=passphrase)
        if stored.kind is not PrincipalKind.OPERATOR:
            raise ConfigurationError(
                f"expected the key of the federation's operator, got that of a {stored.kind}.",
                key="key",
                remedy="Give the operator's key file, which «permslip broker init» or «permslip keys new» made.",
            )
        identity = identify(stored, None, federation=federation)
        operator = identity.keys.signing.public.did
        server = server_of(broker, broker_root, federation, operator, os.fspath(tls_ca) if tls_ca else None)
        self._session = Session(server, identity, timeout or Timeout(), now)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connection."""
        await self._session.close()

    async def admit(
        self,
        root: str | bytes,
        *,
        kind: str,
        name: str,
        agreement_id: str,
        valid_until: int = 0,
        audit_scope: pb.AuditScope | None = None,
    ) -> Signed[pb.Admission]:
        """Admit an organization; a later admission replaces an earlier one and ends a suspension.

        Args:
            root: its root key.
            kind: ``provider``, ``node`` or ``auditor``.
            name: its public name, as parents see it.
            agreement_id: of its data agreement.
            valid_until: UTC milliseconds; 0 is until suspended.
            audit_scope: for an auditor: nodes and dates (:func:`permslip.audit_scope.make_scope`); none is everything.

        Raises:
            RefusedError: the broker did not record it.
            MalformedError: names what is wrong.
        """
        signed = make_admission(
            self._session,
            _root(root),
            kind=kind,
            name=name,
            agreement_id=agreement_id,
            valid_until=valid_until,
            audit_scope=audit_scope,
        )
        await self.register([signed.envelope])
        return signed

    async def suspend(self, root: str | bytes, *, agreement_id: str = "") -> Signed[pb.Suspension]:
        """Suspend an organization from now."""
        signed = make_suspension(self._session, _root(root), agreement_id=agreement_id)
        await self.register([signed.envelope])
        return signed

    async def register(self, statements: Sequence[pb.Envelope]) -> None:
        """Deliver certificates, admissions or suspensions; each speaks for itself, whoever brings it.

        Raises:
            RefusedError: names the first that was not recorded.
        """
        request = operator_pb2.AdmitRequest(statements=statements)
        response = await self._session.call(operator_pb2_grpc.OperatorServiceStub, "Admit", request)
        if len(response.results) != len(statements):
            raise MalformedError("the broker answered about other statements.", field="results")
        for envelope, result in zip(statements, response.results, strict=True):
            if result.refusal.code != Reason.ALLOWED.wire:
                raise error_of_refusal(result.refusal, about=st.kind_of(envelope).name)

    async def status(self) -> BrokerStatus:
        """How the broker is, and its nodes."""
        session = self._session

        async def call(hello: pb.Envelope) -> Any:
            request = operator_pb2.GetStatusRequest(hello=hello)
            return await session.call(operator_pb2_grpc.OperatorServiceStub, "GetStatus", request)

        told = await session.with_greeting(call)
        directory = await session.know({each.root for each in told.nodes})
        return BrokerStatus(
            ledger_size=told.ledger_size,
            root_hash=told.root_hash,
            grants=told.grants,
            software_version=told.software_version,
            started_at=told.started_at,
            nodes=tuple(
                NodeState(
                    each.root,
                    directory.name(each.root),
                    each.attached,
                    each.last_tick_at,
                    each.pushes_held,
                    each.pushes_due,
                )
                for each in told.nodes
            ),
        )

    async def organization(self, root: str | bytes) -> Organization | None:
        """The organization with this root key, verified; None where nobody was admitted under it."""
        wanted = _root(root)
        return (await self._session.know([wanted])).organization(wanted)

    async def organizations(self) -> list[Organization]:
        """Every organization of the federation, verified."""
        return await self._session.organizations()


def make_admission(
    session: Session,
    root: bytes,
    *,
    kind: str,
    name: str,
    agreement_id: str,
    valid_until: int,
    audit_scope: pb.AuditScope | None = None,
) -> Signed[pb.Admission]:
    """A signed admission; arguments as for :meth:`AsyncOperatorClient.admit`."""
    code = ORGANIZATIONS.get(kind)
    if code is None:
        raise MalformedError(f"expected one of {', '.join(ORGANIZATIONS)}, got {kind!r}.", field="admission.kind")
    if audit_scope is not None and code != pb.PRINCIPAL_KIND_AUDITOR:
        raise MalformedError(f"expected none for a {kind}.", field="admission.audit_scope", remedy="Leave it out.")
    payload = pb.Admission(
        federation=session.server.federation,
        nonce=os.urandom(16),
        created_at=session.now(),
        signer=session.identity.signer,
        root=root,
        kind=code,
        name=name,
        agreement_id=agreement_id,
        valid_until=valid_until,
        audit_scope=audit_scope,
    )
    return st.sign(st.ADMISSION, payload, [session.identity.keys.signing])


def make_suspension(session: Session, root: bytes, *, agreement_id: str) -> Signed[pb.Suspension]:
    """A signed suspension."""
    payload = pb.Suspension(
        federation=session.server.federation,
        nonce=os.urandom(16),
        created_at=session.now(),
        signer=session.identity.signer,
        root=root,
        agreement_id=agreement_id,
    )
    return st.sign(st.SUSPENSION, payload, [session.identity.keys.signing])


def _root(key: str | bytes) -> bytes:
    parsed = PublicKey.from_did(key, field="root") if isinstance(key, str) else PublicKey.parse(key, field="root")
    return parsed.raw
