"""Everything that Permslip raises, in one tree.

A caller who catches :class:`PermslipError` catches all of it; parsers never leak ``ValueError``.
«No» (:class:`RefusedError`) differs from «could not check» (:class:`UnavailableError`)::

    PermslipError
    ├── MalformedError          the bytes are not what the format says (names the field)
    ├── VerificationError       well formed, but not to be believed
    │   ├── SignatureError      a signature is missing, unnamed, duplicated or invalid
    │   ├── KeyRejectedError    a key that must not be used (small order, not certified, out of date)
    │   ├── SealError           a sealed message was altered, cut short or is for somebody else
    │   ├── AttenuationError    a delegation gives more than its parent (names the dimension)
    │   ├── AuthorityError      the signer may not do this (revoke, endorse, push)
    │   └── ProofError          a Merkle proof, checkpoint or cosignature does not hold
    ├── RefusedError            a broker or node said no (carries the reason code and its remedy)
    ├── UnavailableError        no answer could be had: try again
    │   └── TimedOutError       the time allowed for the call ran out
    ├── TooLargeError           an answer is larger than the caller allows
    ├── KeyFileError            a private key file cannot be used (missing, readable by others, wrong passphrase)
    ├── ConfigurationError      a configuration key is missing or wrong (names the key)
    └── ImportFileError         a source file cannot be read at all (names file and line)

Every message says what was expected, what came, and what to do next.
"""

from __future__ import annotations

__all__ = [
    "AttenuationError",
    "AuthorityError",
    "ConfigurationError",
    "ImportFileError",
    "KeyFileError",
    "KeyRejectedError",
    "MalformedError",
    "PermslipError",
    "ProofError",
    "RefusedError",
    "SealError",
    "SignatureError",
    "TimedOutError",
    "TooLargeError",
    "UnavailableError",
    "VerificationError",
]


class PermslipError(Exception):
    """Base of all errors.

    Args:
        message: what was expected and what came.
        remedy: what the reader can do next, as a sentence; empty where nothing can be done.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class MalformedError(PermslipError):
    """Bytes that are not what the format says.

    Args:
        field: dotted path of the field, e.g. ``grant.sections[2]``; empty when the whole is meant.
    """

    def __init__(self, message: str, *, field: str = "", remedy: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message, remedy=remedy)
        self.field = field


class VerificationError(PermslipError):
    """Well formed, but not to be believed."""


class SignatureError(VerificationError):
    """A signature is missing, unnamed, duplicated or invalid."""


class KeyRejectedError(VerificationError):
    """A key that must not be used: small order, not certified, out of date."""


class SealError(VerificationError):
    """A sealed message was altered, cut short, reordered, or is for somebody else."""


class AttenuationError(VerificationError):
    """A delegation gives more than its parent.

    Args:
        dimension: which of sections, actions, time, dates, uses, depth, parties.
    """

    def __init__(self, message: str, *, dimension: str) -> None:
        super().__init__(f"{dimension}: {message}", remedy="Narrow it to what the parent allows and sign again.")
        self.dimension = dimension


class AuthorityError(VerificationError):
    """A genuine signature by somebody who may not do this."""


class ProofError(VerificationError):
    """A Merkle proof, checkpoint or cosignature does not hold."""


class RefusedError(PermslipError):
    """A broker or node said no.

    Args:
        code: the reason's name, e.g. ``"GRANT_REVOKED"``; see :mod:`permslip.reasons`.
        field: the field that was at fault, if one was.
        retry_after: seconds after which trying again makes sense; 0 when it never does.
    """

    def __init__(self, message: str, *, code: str, field: str = "", remedy: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message, remedy=remedy)
        self.code = code
        self.field = field
        self.retry_after = retry_after


class UnavailableError(PermslipError):
    """No answer could be had; nothing is known about what the answer would have been."""


class TimedOutError(UnavailableError):
    """The time allowed for the call ran out."""


class TooLargeError(PermslipError):
    """An answer is larger than the caller allows; what came of it was thrown away."""


class KeyFileError(PermslipError):
    """A private key file cannot be used."""


class ConfigurationError(PermslipError):
    """A configuration key is missing or wrong.

    Args:
        key: dotted configuration key, e.g. ``broker.listen``.
    """

    def __init__(self, message: str, *, key: str, remedy: str = "") -> None:
        super().__init__(f"{key}: {message}", remedy=remedy)
        self.key = key


class ImportFileError(PermslipError):
    """A source file cannot be read at all."""

    def __init__(self, message: str, *, file: str, line: int = 0, remedy: str = "") -> None:
        super().__init__(f"{file}:{line}: {message}" if line else f"{file}: {message}", remedy=remedy)
        self.file = file
        self.line = line
