"""Permslip: a federated consent and access broker for learner profiles.

What stands in ``__all__`` is the public interface of the SDK; ``docs/reference/sdk.md`` describes it. Names are loaded
when they are used first, so that ``import permslip`` costs next to nothing.

Example::

    from permslip import Client

    with Client(broker="broker.example:7443", broker_root="did:key:…", federation="grand-bend",
                operator="did:key:…", keys="provider.key", cert="provider.cert") as client:
        profile = client.profile("learner-17")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from permslip.armor import read_statement, read_statements, write_statements
    from permslip.client.accesses import Access, AccessReport, LedgerSide, SliceReport
    from permslip.client.auditing import AsyncAuditorClient, FetchedStatements, LedgerCheckpoint
    from permslip.client.blocking import Client, GuardianClient, OperatorClient
    from permslip.client.blocking_auditing import AuditorClient
    from permslip.client.consenting import Consent, ConsentDraft
    from permslip.client.guarding import AsyncGuardianClient
    from permslip.client.operating import AsyncOperatorClient, BrokerStatus
    from permslip.client.proof_checking import CheckedProof, ProofChecker, missing_numbers
    from permslip.client.proof_files import save_proofs
    from permslip.client.providing import AsyncClient
    from permslip.client.reading import RecordStream
    from permslip.client.revoking import RevocationState, RevokedGrant
    from permslip.client.timeouts import Timeout
    from permslip.consents import cosign
    from permslip.coverage import Coverage, Held
    from permslip.directory import Organization
    from permslip.entries import Entry, Fact
    from permslip.errors import (
        AttenuationError,
        AuthorityError,
        ConfigurationError,
        ImportFileError,
        KeyFileError,
        KeyRejectedError,
        MalformedError,
        PermslipError,
        ProofError,
        RefusedError,
        SealError,
        SignatureError,
        TimedOutError,
        TooLargeError,
        UnavailableError,
        VerificationError,
    )
    from permslip.grant_views import GrantStatus, GrantView
    from permslip.jagged import Jagged, JaggedRow, Mark
    from permslip.keyfile import PrincipalKind, StoredKeys, read_key_file, write_key_file
    from permslip.keys import PublicKey, SealingKey, SigningKey
    from permslip.notices import NoticeText
    from permslip.profile import Conflict, Profile, SliceAnswer
    from permslip.reasons import Reason
    from permslip.slice_chains import ChainEntry
    from permslip.tlog_proof import TlogProof, verify_proof
    from permslip.wallet import GivenGrant, LinkedSlice, Wallet

__all__ = [
    "Access",
    "AccessReport",
    "AsyncAuditorClient",
    "AsyncClient",
    "AsyncGuardianClient",
    "AsyncOperatorClient",
    "AttenuationError",
    "AuditorClient",
    "AuthorityError",
    "BrokerStatus",
    "ChainEntry",
    "CheckedProof",
    "Client",
    "ConfigurationError",
    "Conflict",
    "Consent",
    "ConsentDraft",
    "Coverage",
    "Entry",
    "Fact",
    "FetchedStatements",
    "GivenGrant",
    "GrantStatus",
    "GrantView",
    "GuardianClient",
    "Held",
    "ImportFileError",
    "Jagged",
    "JaggedRow",
    "KeyFileError",
    "KeyRejectedError",
    "LedgerCheckpoint",
    "LedgerSide",
    "LinkedSlice",
    "MalformedError",
    "Mark",
    "NoticeText",
    "OperatorClient",
    "Organization",
    "PermslipError",
    "PrincipalKind",
    "Profile",
    "ProofChecker",
    "ProofError",
    "PublicKey",
    "Reason",
    "RecordStream",
    "RefusedError",
    "RevocationState",
    "RevokedGrant",
    "SealError",
    "SealingKey",
    "SignatureError",
    "SigningKey",
    "SliceAnswer",
    "SliceReport",
    "StoredKeys",
    "TimedOutError",
    "Timeout",
    "TlogProof",
    "TooLargeError",
    "UnavailableError",
    "VerificationError",
    "Wallet",
    "cosign",
    "missing_numbers",
    "read_key_file",
    "read_statement",
    "read_statements",
    "save_proofs",
    "verify_proof",
    "write_key_file",
    "write_statements",
]

# Where each name lives.
_PLACES: Final[dict[str, tuple[str, ...]]] = {
    "armor": ("read_statement", "read_statements", "write_statements"),
    "client.accesses": ("Access", "AccessReport", "LedgerSide", "SliceReport"),
    "client.auditing": ("AsyncAuditorClient", "FetchedStatements", "LedgerCheckpoint"),
    "client.blocking": ("Client", "GuardianClient", "OperatorClient"),
    "client.blocking_auditing": ("AuditorClient",),
    "client.consenting": ("Consent", "ConsentDraft"),
    "client.guarding": ("AsyncGuardianClient",),
    "client.operating": ("AsyncOperatorClient", "BrokerStatus"),
    "client.proof_checking": ("CheckedProof", "ProofChecker", "missing_numbers"),
    "client.proof_files": ("save_proofs",),
    "client.providing": ("AsyncClient",),
    "client.reading": ("RecordStream",),
    "client.revoking": ("RevocationState", "RevokedGrant"),
    "client.timeouts": ("Timeout",),
    "consents": ("cosign",),
    "coverage": ("Coverage", "Held"),
    "directory": ("Organization",),
    "entries": ("Entry", "Fact"),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "grant_views": ("GrantStatus", "GrantView"),
    "jagged": ("Jagged", "JaggedRow", "Mark"),
    "keyfile": ("PrincipalKind", "StoredKeys", "read_key_file", "write_key_file"),
    "keys": ("PublicKey", "SealingKey", "SigningKey"),
    "notices": ("NoticeText",),
    "profile": ("Conflict", "Profile", "SliceAnswer"),
    "reasons": ("Reason",),
    "slice_chains": ("ChainEntry",),
    "tlog_proof": ("TlogProof", "verify_proof"),
    "wallet": ("GivenGrant", "LinkedSlice", "Wallet"),
}
_MODULES: Final = {name: f"permslip.{module}" for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'permslip' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
