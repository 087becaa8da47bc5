"""``AsyncOperatorClient``: the federation's operator admits, suspends, and registers certificates.

Example::

    async with AsyncOperatorClient(
        broker="broker.example:7443", broker_root="did:key:…", federation="grand-bend", keys="operator.key",
    ) as operator:
        await operator.admit(root, kind="node", name="High School", agreement_id="NDPA-2026-17")
        await operator.register("high/node.cert")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from permslip import statements as st
from permslip._pb.permslip.v1 import (
    operator_pb2,
    operator_pb2_grpc,
    session_pb2,
    statement_pb2 as pb,
)
from permslip.armor import read_statement
from permslip.client.failures import error_of_refusal
from permslip.client.identity import CertSource, KeySource, identify
from permslip.client.session import Session, system_clock
from permslip.client.settings import server_of
from permslip.client.timeouts import Timeout
from permslip.keyfile import Passphrase, StoredKeys, read_key_file
from permslip.keyformat import PrincipalKind
from permslip.quantities import Millis
from permslip.statements import Signed

__all__ = ["AsyncOperatorClient"]


class AsyncOperatorClient:
    """The operator's connection to a broker. Nothing is connected before it is needed.

    Args:
        broker, broker_root, federation, tls_ca, timeout, passphrase, now: as for
            :class:`permslip.client.providing.AsyncClient`.
        keys: the operator's key, or the path of its file.

    Raises:
        ConfigurationError: names the argument that is wrong.
        KeyFileError: the key file cannot be used.
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
        operator = stored.signing.public.did
        server = server_of(broker, broker_root, federation, operator, os.fspath(tls_ca) if tls_ca else None)
        self._identity = identify(stored, None, federation=federation)
        self._session = Session(server, self._identity, timeout or Timeout(), now)

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
        self, root: bytes, *, kind: PrincipalKind | str, name: str, agreement_id: str, valid_until: int = 0
    ) -> Signed[pb.Admission]:
        """Admit an organization; ends a suspension.

        Args:
            root: its root key.
            kind: what it is: ``provider``, ``node`` or ``auditor``.
            name: as parents see it.
            agreement_id: of the data agreement.
            valid_until: UTC milliseconds; 0 is until suspended.

        Raises:
            RefusedError: the broker did not take it.
            UnavailableError: no answer could be had.
        """
        admission = pb.Admission(
            **self._head(),
            root=root,
            kind=pb.PrincipalKind.Value(f"PRINCIPAL_KIND_{PrincipalKind(kind).name}"),
            name=name,
            agreement_id=agreement_id,
            valid_until=valid_until,
        )
        signed = st.sign(st.ADMISSION, admission, [self._identity.keys.signing])
        await self.deposit([signed.envelope])
        return signed

    async def suspend(self, root: bytes, *, agreement_id: str = "") -> Signed[pb.Suspension]:
        """Suspend an organization from now; arguments and errors as for :meth:`admit`."""
        suspension = pb.Suspension(**self._head(), root=root, agreement_id=agreement_id)
        signed = st.sign(st.SUSPENSION, suspension, [self._identity.keys.signing])
        await self.deposit([signed.envelope])
        return signed

    async def register(self, *certs: CertSource) -> None:
        """Register key certificates: each signed by its organization's root, which must be admitted.

        Raises:
            MalformedError: a file holds no certificate.
            RefusedError: the broker did not take one.
        """
        await self.deposit(
            [each if isinstance(each, pb.Envelope) else read_statement(each, st.KEY_CERT) for each in certs]
        )

    async def deposit(self, statements: Sequence[pb.Envelope]) -> list[session_pb2.DepositResult]:
        """Deposit admissions, suspensions and certificates, in order.

        Raises:
            RefusedError: the first that the broker did not take; those before it count.
        """
        request = operator_pb2.AdmitRequest(statements=statements)
        response = await self._session.call(operator_pb2_grpc.OperatorServiceStub, "Admit", request)
        results: list[session_pb2.DepositResult] = list(response.results)
        for result in results:
            if result.refusal.code not in (pb.REASON_UNSPECIFIED, pb.REASON_ALLOWED):
                raise error_of_refusal(result.refusal)
        return results

    async def status(self) -> operator_pb2.GetStatusResponse:
        """The broker's ledger, and which nodes are attached.

        Raises:
            RefusedError: the caller is not the operator.
        """

        async def ask(hello: pb.Envelope) -> Any:
            request = operator_pb2.GetStatusRequest(hello=hello)
            return await self._session.call(operator_pb2_grpc.OperatorServiceStub, "GetStatus", request)

        response: operator_pb2.GetStatusResponse = await self._session.with_greeting(ask)
        return response

    def _head(self) -> dict[str, Any]:
        return {
            "federation": self._session.server.federation,
            "nonce": os.urandom(16),
            "created_at": self._session.now(),
            "signer": self._identity.signer,
        }
