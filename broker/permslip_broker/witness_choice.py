"""Whose cosignatures count for this broker's checkpoints now, and how many are enough.

The operator's file says it where the configuration names one. Without it the admitted nodes are asked (of more than 29
those with the lowest roots), and the smallest majority of them is enough: that shows whoever looks what nodes saw, but
it is a choice of this broker's, and nobody can hold the broker to it.

Example::

    choice = WitnessChoice(identity, facts, clock, read_witness_set(settings))
    choice.needed, choice.key_of(root)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Final

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.armor import read_statements
from permslip.errors import ConfigurationError, PermslipError
from permslip.hosting.facts_store import FactStore
from permslip.keys import PublicKey
from permslip.notes import VerifierKey
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.standing import Standing, key_reason
from permslip.statements import Signed
from permslip.witnesses import verify_witness_sets, witness_key
from permslip_broker.configuration import BrokerSettings
from permslip_broker.identity import Identity

__all__ = ["WitnessChoice", "read_witness_set"]

# Milliseconds for which the admitted nodes are taken to be those that were found.
_FOUND_FOR: Final = 10_000
# No more are asked than a set can name.
_MOST: Final = 29
_PAGE: Final = 500


def read_witness_set(settings: BrokerSettings) -> Signed[pb.WitnessSet] | None:
    """The set that the configuration names; None where it names none.

    Raises:
        ConfigurationError: the file cannot be read, or is not to be believed.
    """
    if settings.witness_set_file is None:
        return None
    try:
        envelopes = read_statements(settings.witness_set_file)
        operator = PublicKey.from_did(settings.operator).raw
        return verify_witness_sets(envelopes, federation=settings.federation, operator=operator)
    except PermslipError as error:
        raise ConfigurationError(error.message, key="broker.witness_set_file", remedy=error.remedy) from error


class WitnessChoice:
    """Reads standings as they are now. Belongs to the event loop.

    Args:
        identity: the broker's, whose own key is no witness.
        facts: who is admitted, with which key.
        clock: the broker's.
        witness_set: the operator's; None: there is none.
    """

    def __init__(
        self,
        identity: Identity,
        facts: FactStore,
        clock: Callable[[], Millis],
        witness_set: Signed[pb.WitnessSet] | None,
    ) -> None:
        self._identity, self._facts, self._clock = identity, facts, clock
        self._set = witness_set
        self._found: tuple[bytes, ...] = ()
        self._found_at = Millis(-_FOUND_FOR)
        self._keys_of: tuple[tuple[bytes, bytes], ...] = ()
        self._keys: dict[bytes, VerifierKey] = {}

    @property
    def is_pinned(self) -> bool:
        """Whether the operator named the set."""
        return self._set is not None

    @property
    def size(self) -> int:
        """How many witnesses there are."""
        return len(self._roots())

    @property
    def needed(self) -> int:
        """How many of them must have cosigned."""
        return self._set.payload.quorum if self._set is not None else len(self._roots()) // 2 + 1

    def is_witness(self, root: bytes) -> bool:
        """Whether a node is asked to cosign."""
        return root in self._roots()

    def look_again(self) -> None:
        """Who is admitted may have changed."""
        self._found_at = Millis(-_FOUND_FOR)

    def key_of(self, root: bytes) -> VerifierKey | None:
        """The key under which a node's cosignatures count; None where it has none that is its own."""
        named = tuple((each, key) for each in self._roots() if (key := self._signing_key(each)) is not None)
        if named != self._keys_of:
            shared = Counter(key for _, key in named)
            self._keys = {
                each: witness_key(self._identity.federation, each, key)
                for each, key in named
                if shared[key] == 1 and key != self._identity.key.public.raw
            }
            self._keys_of = named
        return self._keys.get(root)

    def _roots(self) -> Collection[bytes]:
        if self._set is not None:
            return self._set.payload.witnesses
        now = self._clock()
        if not 0 <= now - self._found_at < _FOUND_FOR:
            self._found, self._found_at = tuple(islice(self._admitted(), _MOST)), now
        return self._found

    def _admitted(self) -> Iterator[bytes]:
        after = b""
        while page := self._facts.standings(after=after, limit=_PAGE):
            yield from (each.root for each in page if self._counts(each))
            after = page[-1].root

    def _signing_key(self, root: bytes) -> bytes | None:
        standing = self._facts.standing(root)
        if standing is None or standing.cert is None or not self._counts(standing):
            return None
        return standing.cert.payload.signing_key

    def _counts(self, standing: Standing) -> bool:
        now, cert = self._clock(), standing.cert
        if cert is None or not standing.is_admitted(pb.PRINCIPAL_KIND_NODE, now):
            return False
        signer = pb.Signer(root=standing.root, key=cert.payload.signing_key)
        return key_reason(standing, signer, now) == Reason.ALLOWED
