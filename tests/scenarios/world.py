"""A small federation for tests: named parties with fixed keys, a clock that stands still, statements that are signed.

Everything is deterministic: a party's keys come from its name, nonces from a counter, the time is :data:`NOW` unless a
test moves it. Making a statement records nothing; :meth:`World.record` judges and records it, as a broker would.

Example::

    world = World()
    school, tutor, mother = world.node("school"), world.provider("tutor"), world.person("mother")
    grant = world.record(world.grant(mother, school, tutor, sections=["transcript"]))
    world.record(world.endorsement(grant, school))
    assert world.ask(world.query(tutor, grant, ["transcript.grades"])).reason == Reason.ALLOWED
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol, TypeAlias, TypeVar

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.decision import Decision, decide
from permslip.facts import FactReader, MemoryFacts, check_admissible, gather
from permslip.grants import revoker_hash
from permslip.keys import SealingKey, SigningKey
from permslip.quantities import Millis
from permslip.statements import Signed

FEDERATION = "fed.example"
NOW = Millis(1_790_000_000_000)  # 2026-09-21 13:33:20 UTC
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

P = TypeVar("P", bound=Any)


class Store(FactReader, Protocol):
    """A reader of facts that records as well."""

    def record(self, signed: Signed[Any]) -> None:
        """Record an admissible statement."""
        ...


def seed(*words: object) -> bytes:
    """32 bytes that belong to these words."""
    return sha256("/".join(str(word) for word in words).encode()).digest()


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody with keys. A person's root is the key she signs with; an organization's is not.

    Attributes:
        name: from which the keys are made.
        root: the root key.
        online: the key that signs.
        sealing: to which others seal.
    """

    name: str
    root: SigningKey
    online: SigningKey
    sealing: SealingKey

    @property
    def signer(self) -> pb.Signer:
        """How statements name it."""
        return pb.Signer(root=self.root.public.raw, key=self.online.public.raw)

    @property
    def id(self) -> bytes:
        """The root's public key."""
        return self.root.public.raw

    def with_online_key(self, number: int) -> Party:
        """The same organization with another online key."""
        return Party(self.name, self.root, SigningKey.from_seed(seed(self.name, "online", number)), self.sealing)

    def signing_as(self, other: Party) -> Party:
        """Somebody who claims to be this party but signs with the other's key."""
        return Party(self.name, self.root, other.online, self.sealing)


Signers: TypeAlias = Party | Sequence[Party]


class World:
    """One federation, its operator, and the facts as one store knows them."""

    def __init__(self, store: Store | None = None, *, federation: str = FEDERATION) -> None:
        self.federation = federation
        self.facts: Store = MemoryFacts() if store is None else store
        self.now = NOW
        self.operator = self.person("operator")
        self._count = 0

    # ------------------------------------------------------------------------------------------ parties

    def person(self, name: str) -> Party:
        """Somebody who signs with her own key."""
        key = SigningKey.from_seed(seed(name, "root"))
        return Party(name, key, key, SealingKey.from_seed(seed(name, "sealing")))

    def organization(self, name: str) -> Party:
        """An organization that nobody admitted yet."""
        root, online = SigningKey.from_seed(seed(name, "root")), SigningKey.from_seed(seed(name, "online", 1))
        return Party(name, root, online, SealingKey.from_seed(seed(name, "sealing")))

    def node(self, name: str) -> Party:
        """An admitted and certified node."""
        return self._admitted(name, pb.PRINCIPAL_KIND_NODE)

    def provider(self, name: str) -> Party:
        """An admitted and certified provider."""
        return self._admitted(name, pb.PRINCIPAL_KIND_PROVIDER)

    # ------------------------------------------------------------------------------------------ statements

    def admission(self, party: Party, kind: pb.PrincipalKind.ValueType, /, **changes: Any) -> Signed[pb.Admission]:
        """The operator admits a party."""
        body = pb.Admission(
            **self.common(self.operator), root=party.id, kind=kind, name=party.name, agreement_id="NDPA-1"
        )
        return self._signed(st.ADMISSION, body, changes, [self.operator.online])

    def suspension(self, party: Party, /, **changes: Any) -> Signed[pb.Suspension]:
        """The operator suspends a party."""
        body = pb.Suspension(**self.common(self.operator), root=party.id)
        return self._signed(st.SUSPENSION, body, changes, [self.operator.online])

    def key_cert(self, party: Party, seq: int = 1, /, **changes: Any) -> Signed[pb.KeyCert]:
        """The root certifies the online key."""
        common = self.common(party)
        del common["signer"]
        body = pb.KeyCert(
            **common,
            root=party.id,
            signing_key=party.online.public.raw,
            sealing_key=party.sealing.public,
            seq=seq,
            valid_until=self.now + 300 * DAY,
        )
        return self._signed(st.KEY_CERT, body, changes, [party.root])

    def grant(self, signers: Signers, node: Party, grantee: Party, /, **changes: Any) -> Signed[pb.Grant]:
        """Guardians grant; ``changes`` are fields of ``Grant``, and ``handle``."""
        signing = [signers] if isinstance(signers, Party) else list(signers)
        handle = changes.pop("handle", seed("handle", node.name)[:16])
        common = self.common(signing[0])
        del common["signer"]
        body = pb.Grant(
            **common,
            granted_by=sorted(each.id for each in signing),
            slice=pb.Slice(node=node.id, handle=handle),
            grantee=grantee.id,
            actions=[pb.ACTION_READ],
            sections=["transcript"],
            purpose=pb.PURPOSE_TUTORING,
            not_before=self.now - MINUTE,
            expires_at=self.now + 90 * DAY,
            notice=pb.Notice(template="consent", version="v1", language="en", salted_sha256=seed("notice")),
            private=pb.SealedPrivate(
                salted_sha256=seed("private"),
                copies=[pb.SealedCopy(recipient=min(node.sealing.public, grantee.sealing.public), sealed=b"sealed")],
            ),
        )
        return self._signed(st.GRANT, body, changes, [each.online for each in signing])

    def endorsement(self, grant: Signed[pb.Grant], node: Party, /, **changes: Any) -> Signed[pb.Endorsement]:
        """The node endorses; ``changes`` are fields of ``Endorsement``, and ``guardians`` who may revoke."""
        guardians: Sequence[Party] = changes.pop("guardians", ())
        keys = {*grant.payload.granted_by, *(each.id for each in guardians)}
        body = pb.Endorsement(
            **self.common(node),
            grant_id=grant.id,
            verdict=pb.ENDORSEMENT_VERDICT_ENDORSED,
            quorum_rule="any",
            revokers=sorted(revoker_hash(grant.id, key) for key in keys),
            valid_until=self.now + 30 * DAY,
        )
        return self._signed(st.ENDORSEMENT, body, changes, [node.online])

    def delegation(self, giver: Party, parent: Signed[Any], to: Party, /, **changes: Any) -> Signed[pb.Delegation]:
        """The holder of a grant or delegation passes it on; by default all of it, one level less deep."""
        above = parent.payload
        onward = [each for each in above.onward_parties if above.delegation_depth > 1]
        body = pb.Delegation(
            **self.common(giver),
            parent_id=parent.id,
            delegatee=to.id,
            actions=above.actions,
            sections=above.sections,
            not_before=above.not_before,
            expires_at=above.expires_at,
            records_from=above.records_from,
            records_until=above.records_until,
            max_uses=above.max_uses,
            delegation_depth=max(above.delegation_depth - 1, 0),
            onward_parties=onward,
        )
        return self._signed(st.DELEGATION, body, changes, [giver.online])

    def revocation(
        self, by: Party, target: Signed[Any], node: Party, role: str = "GUARDIAN", /, **changes: Any
    ) -> Signed[pb.Revocation]:
        """Somebody revokes a grant or delegation."""
        body = pb.Revocation(
            **self.common(by),
            target_id=target.id,
            node=node.id,
            role=pb.RevokerRole.Value(f"REVOKER_ROLE_{role}"),
        )
        return self._signed(st.REVOCATION, body, changes, [by.online])

    def acknowledgement(self, node: Party, statement: Signed[Any], /, **changes: Any) -> Signed[pb.Acknowledgement]:
        """A node says that it holds a revocation or suspension."""
        payload = statement.payload
        target = payload.target_id if statement.kind is st.REVOCATION else payload.root
        body = pb.Acknowledgement(
            **self.common(node), statement_id=statement.id, target_id=target, ledger_size=self.facts.position + 1
        )
        return self._signed(st.ACKNOWLEDGEMENT, body, changes, [node.online])

    def query(
        self,
        by: Party,
        grant: Signed[pb.Grant],
        sections: Sequence[str] = ("transcript.grades",),
        chain: Sequence[Signed[pb.Delegation]] = (),
        **changes: Any,
    ) -> Signed[pb.Query]:
        """Somebody asks under a grant, through delegations if there are any."""
        body = pb.Query(
            **self.common(by),
            expires_at=self.now + MINUTE,
            grant_id=grant.id,
            delegation_ids=[each.id for each in chain],
            action=pb.ACTION_READ,
            sections=sorted(sections),
            reply_key=SealingKey.from_seed(seed("reply", self._count)).public,
        )
        return self._signed(st.QUERY, body, changes, [by.online])

    # ------------------------------------------------------------------------------------------ what happens

    def record(self, signed: Signed[P], *, pushed: bool = False) -> Signed[P]:
        """Judge a statement and record it, as a broker does, or as a node does that takes a push; returns it."""
        self.judge(signed, pushed=pushed)
        self.facts.record(signed)
        return signed

    def judge(self, signed: Signed[Any], *, pushed: bool = False) -> None:
        """Whether it may be recorded; a push is judged by the time at which it was made."""
        now = Millis(min(self.now, signed.payload.created_at)) if pushed else self.now
        check_admissible(self.facts, signed, operator=self.operator.id, now=now)

    def granted(self, signers: Signers, node: Party, grantee: Party, /, **changes: Any) -> Signed[pb.Grant]:
        """A grant that is recorded and endorsed."""
        guardians = changes.pop("guardians", ())
        grant = self.record(self.grant(signers, node, grantee, **changes))
        self.record(self.endorsement(grant, node, guardians=guardians))
        return grant

    def ask(self, query: Signed[pb.Query], **known: Any) -> Decision:
        """Decide a query on the facts as they are; ``known`` goes to :func:`permslip.facts.gather`."""
        return decide(gather(self.facts, query, **known), query, now=self.now)

    def pass_time(self, millis: int) -> None:
        """Move the clock on."""
        self.now = Millis(self.now + millis)

    # ------------------------------------------------------------------------------------------ inside

    def _admitted(self, name: str, kind: pb.PrincipalKind.ValueType) -> Party:
        party = self.organization(name)
        self.record(self.admission(party, kind))
        self.record(self.key_cert(party))
        return party

    def common(self, by: Party) -> dict[str, Any]:
        self._count += 1
        return {
            "federation": self.federation,
            "nonce": seed("nonce", self._count)[:16],
            # No two statements of one world have the same time: what is «newer» is never in doubt.
            "created_at": self.now + self._count,
            "signer": by.signer,
        }

    def _signed(self, kind: st.Kind[P], body: P, changes: dict[str, Any], keys: Sequence[SigningKey]) -> Signed[P]:
        for name in changes:
            body.ClearField(name)
        changed = type(body)(**changes)
        body.MergeFrom(changed)
        return st.sign(kind, body, keys)
