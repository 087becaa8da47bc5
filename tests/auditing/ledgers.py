"""A federation that keeps its ledgers in memory, for tests of auditors: honest, and altered where a test says so.

Broker and nodes write the entries that the real ones write, with real signatures, real decisions and real leaves. A
test lets things happen, plants a fault in the entries if it wants one, and writes an audit bundle of it all.

Example::

    fed = Audited()
    school, tutor, mother = fed.node("school"), fed.provider("tutor"), fed.person("mother")
    grant = fed.consent(mother, school, tutor)
    fed.access(tutor, grant)
    fed.revoke(mother, grant, school)
    fed.broker.entries[-1].recorded_at -= 90_000
    bundle, trust = fed.bundle(tmp_path / "audit.db"), fed.trust
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.bundle import Bundle
from permslip.auditing.entry_rows import entry_row
from permslip.auditing.results import Trust
from permslip.decision import Decision, Facts, decide
from permslip.facts import MemoryFacts, check_admissible, gather
from permslip.hosting.leaves import LeafEncoder, encode_event, encode_time
from permslip.keys import did_text
from permslip.merkle import Frontier, leaf_hash
from permslip.quantities import Millis, Position
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.scenarios.world import DAY, FEDERATION, Party, World, seed

Place = tuple[bytes, bytes]
TO_ALL = (st.ADMISSION, st.SUSPENSION, st.KEY_CERT)


@dataclass
class Entry:
    """An entry that is not a leaf yet; change what you like.

    Attributes:
        hidden: comes as a hash alone.
    """

    event: str
    body: Any
    recorded_at: int
    place: Place | None = None
    hidden: bool = False


@dataclass
class Access:
    """What became of one query: positions and verdicts."""

    query: Signed[pb.Query]
    routed: int
    reason: Reason
    served: int | None = None
    answered: Reason | None = None
    manifest: Signed[pb.Manifest] | None = None


class Keeper:
    """One ledger, and the facts that its keeper knows."""

    def __init__(self, party: Party, origin: str, kind: str, opened_at: int) -> None:
        self.party, self.origin, self.kind = party, origin, kind
        self.entries: list[Entry] = []
        self.facts = MemoryFacts()
        self.seen: set[bytes] = set()
        self.uses: dict[bytes, int] = {}
        self.checkpoints: list[tuple[int, list[dict[str, Any]]]] = []
        self.pushes: list[tuple[Signed[Any], int]] = []
        self.held = 0
        # How many entries there were about each slice when they were written.
        self.chained: Counter[Place | None] = Counter()
        self.append("ledger_opened", ledger_pb2.LedgerOpened(origin=origin), opened_at)

    def append(self, event: str, body: Any, at: int, place: Place | None = None) -> int:
        """One entry more; returns its position."""
        at = max(at, self.entries[-1].recorded_at if self.entries else 0)
        self.entries.append(Entry(event, body, at, place))
        self.chained[place] += 1
        self.facts.advance(len(self.entries))
        return len(self.entries) - 1

    def recorded(self, signed: Signed[Any], at: int, *, subject: bytes, place: Place | None, push: int = 0) -> int:
        """A statement counts from here on."""
        body = ledger_pb2.StatementRecorded(
            statement_id=signed.id,
            payload_type=signed.kind.payload_type,
            envelope_sha256=signed.sha256,
            subject=subject,
            push_number=push,
        )
        position = self.append("statement_recorded", body, at, place)
        self.facts.record(signed)
        self.facts.advance(len(self.entries))
        return position

    def find(self, event: str, nth: int = 0, **fields: Any) -> Entry:
        """The nth entry of an event whose body has these fields."""
        found = [
            each
            for each in self.entries
            if each.event == event and all(getattr(each.body, name) == value for name, value in fields.items())
        ]
        return found[nth]

    def position_of(self, entry: Entry) -> int:
        """Where an entry stands."""
        return next(number for number, each in enumerate(self.entries) if each is entry)

    def leaves(self) -> list[bytes]:
        """The entries as leaves, chained slice by slice."""
        encoder, ends, leaves = LeafEncoder(FEDERATION, self.party.id), dict[Place, tuple[int, bytes]](), []
        for number, each in enumerate(self.entries):
            event, time = encode_event(each.event, each.body), encode_time(each.recorded_at)
            nonce = seed(self.origin, number)[:16]
            if each.place is None:
                leaves.append(encoder.encode(nonce, time, event))
                continue
            seq, previous = ends.get(each.place, (0, b""))
            leaf = encoder.encode(nonce, time, event, each.place, seq + 1, previous)
            ends[each.place] = seq + 1, leaf_hash(leaf)
            leaves.append(leaf)
        return leaves


@dataclass
class Erased:
    """A statement that is erased from the bundle."""

    id: bytes
    keeper: Keeper
    position: int
    at: int


class Audited(World):
    """A federation whose broker and nodes keep ledgers.

    Attributes:
        broker: its ledger.
        nodes: node root → that node's ledger.
        statements: everything that was signed and recorded, asked or answered, by id.
        missing: ids that the bundle must not hold.
        erased: what is erased from it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.broker = Keeper(self.organization("broker"), f"{FEDERATION}/broker", "broker", self.now)
        self.facts = self.broker.facts
        self.nodes: dict[bytes, Keeper] = {}
        self.statements: dict[bytes, Signed[Any]] = {}
        self.missing: set[bytes] = set()
        self.erased: list[Erased] = []
        self.offline: set[bytes] = set()

    @property
    def at(self) -> Millis:
        """The time of the next entry; not before anything that was signed."""
        return Millis(self.now + self._count)

    @property
    def trust(self) -> Trust:
        """What an auditor was told."""
        return Trust(self.federation, self.broker.party.id, self.operator.id)

    def keeper(self, node: Party) -> Keeper:
        """A node's ledger."""
        return self.nodes[node.id]

    # ---------------------------------------------------------------------------------------- statements

    def record(self, signed: Signed[Any], *, pushed: bool = False) -> Signed[Any]:
        """The broker takes a statement in, and pushes it."""
        check_admissible(self.facts, signed, operator=self.operator.id, now=self.at)
        self.take(signed)
        return signed

    def take(self, signed: Signed[Any]) -> int:
        """The same, whether or not it is admissible."""
        self.statements[signed.id] = signed
        first = self._opened(signed)
        position = self.broker.recorded(signed, self.at, subject=subject_of(signed), place=self.place(signed))
        for node in self._concerned(signed, first):
            keeper = self.nodes[node]
            for each in self._standing() if node == first else [signed]:
                keeper.pushes.append((each, len(keeper.pushes) + 1))
            if node not in self.offline:
                self.deliver(keeper)
        return position

    def deliver(self, keeper: Keeper) -> None:
        """A node takes what it has not got yet."""
        for signed, number in keeper.pushes[keeper.held :]:
            keeper.held = number
            place = self.place(signed)
            self._bring_chain(keeper, signed)
            subject = subject_of(signed)
            position = keeper.recorded(signed, self.at, subject=subject, place=place, push=number)
            if signed.kind is st.REVOCATION:
                self.acknowledge(keeper, signed, position)

    def acknowledge(self, keeper: Keeper, revocation: Signed[pb.Revocation], position: int) -> Signed[Any]:
        """A node says that it holds a revocation, and the broker records that."""
        word = self.acknowledgement(keeper.party, revocation, ledger_size=position + 1)
        self.statements[word.id] = word
        target = revocation.payload.target_id
        keeper.recorded(word, self.at, subject=target, place=self.place(revocation))
        self.broker.recorded(word, self.at, subject=target, place=self.place(revocation))
        return word

    def endorse(self, grant: Signed[pb.Grant], node: Party, **changes: Any) -> Signed[pb.Endorsement]:
        """The node's word about a grant, in its ledger and in the broker's."""
        keeper, word = self.keeper(node), self.endorsement(grant, node, **changes)
        self.statements[word.id] = word
        if keeper.facts.capability(grant.id) is None:
            keeper.recorded(grant, self.at, subject=b"", place=self.place(grant))
        keeper.recorded(word, self.at, subject=grant.id, place=self.place(grant))
        self.broker.recorded(word, self.at, subject=grant.id, place=self.place(grant))
        return word

    def consent(self, signers: Any, node: Party, grantee: Party, /, **changes: Any) -> Signed[pb.Grant]:
        """A grant that is recorded and endorsed."""
        guardians = changes.pop("guardians", ())
        grant = self.record(self.grant(signers, node, grantee, **changes))
        self.endorse(grant, node, guardians=guardians)
        return grant

    def revoke(self, by: Party, target: Signed[Any], node: Party, role: str = "GUARDIAN") -> Signed[pb.Revocation]:
        """Somebody revokes; the node gets it and acknowledges."""
        return self.record(self.revocation(by, target, node, role))

    def erase(self, keeper: Keeper, *ids: bytes, rule: str = "ferpa-5y") -> None:
        """Statements are erased at the end of their retention."""
        at = self.at
        body = ledger_pb2.StatementsErased(statement_ids=sorted(ids), retention_rule=rule)
        position = keeper.append("statements_erased", body, at)
        self.missing.update(ids)
        self.erased += [Erased(each, keeper, position, at) for each in ids]

    # ------------------------------------------------------------------------------------------ accesses

    def access(
        self,
        by: Party,
        grant: Signed[pb.Grant],
        sections: Sequence[str] = ("transcript.grades",),
        *,
        unfit: Reason = Reason.ALLOWED,
        withheld: Sequence[str] = (),
        ends: Reason = Reason.ALLOWED,
        **changes: Any,
    ) -> Access:
        """A query goes its whole way, as far as it is allowed; ``changes`` are fields of the query."""
        self.pass_time(1_000)
        query = self.query(by, grant, sections, **changes)
        return self.ask_again(query, unfit=unfit, withheld=withheld, ends=ends)

    def ask_again(
        self,
        query: Signed[pb.Query],
        *,
        unfit: Reason = Reason.ALLOWED,
        withheld: Sequence[str] = (),
        ends: Reason = Reason.ALLOWED,
    ) -> Access:
        """A query that is signed goes its way, once more perhaps."""
        self.statements[query.id] = query
        broker = self.broker
        facts = gather(broker.facts, query, seen=query.id in broker.seen)
        decision = decide(facts, query, now=self.at)
        access = Access(query, self.decided(broker, query, facts, decision), decision.reason)
        if decision.reason != Reason.ALLOWED or facts.grant is None:
            return access
        place = facts.grant.payload.slice.node, facts.grant.payload.slice.handle
        keeper = self.nodes[place[0]]
        if place[0] in self.offline:
            self.answered(broker, query, place, Reason.UNREACHABLE)
            access.answered = Reason.UNREACHABLE
            return access
        kept = frozenset(withheld)
        facts = gather(keeper.facts, query, seen=query.id in keeper.seen, unfit=unfit, withheld=kept)
        facts, debited = self._counted(keeper, facts)
        decision = decide(facts, query, now=self.at)
        allowed = decision.reason == Reason.ALLOWED
        told = () if debited is None or facts.uses is None else debited if allowed else facts.uses
        access.served = self.decided(keeper, query, facts, decision, uses=told, routed=access.routed)
        access.answered = decision.reason
        if not allowed:
            self.answered(broker, query, place, decision.reason)
            return access
        for link, uses in zip((facts.grant, *facts.delegations), debited or (), strict=False):  # none are counted: none
            if link is not None and link.payload.max_uses:
                keeper.uses[link.id] = uses
        access.answered = ends
        digest, size = b"", 0
        if ends == Reason.ALLOWED:
            access.manifest = self.manifest(keeper, query, decision)
            digest, size = access.manifest.sha256, 4_096
        self.answered(keeper, query, place, ends, digest, size)
        self.answered(broker, query, place, ends, digest, size)
        return access

    def decided(
        self,
        keeper: Keeper,
        query: Signed[pb.Query],
        facts: Facts,
        decision: Decision,
        *,
        uses: Sequence[int] = (),
        routed: int = 0,
    ) -> int:
        """The entry of a decision."""
        payload, grant = query.payload, facts.grant
        keeper.seen.add(query.id)
        body = ledger_pb2.AccessDecided(
            query_id=query.id,
            envelope_sha256=query.sha256,
            requester=payload.signer,
            grant_id=payload.grant_id,
            delegation_ids=payload.delegation_ids,
            action=payload.action,
            purpose=pb.PURPOSE_UNSPECIFIED if grant is None else grant.payload.purpose,
            reason=decision.reason.wire,
            sections=[ledger_pb2.SectionVerdict(section=path, reason=each.wire) for path, each in decision.sections],
            decided_at=self.at,
            facts_position=facts.position,
            uses=uses,
            routed_position=routed,
        )
        place = None if grant is None else (grant.payload.slice.node, grant.payload.slice.handle)
        return keeper.append("access_decided", body, self.at, place)

    def answered(
        self,
        keeper: Keeper,
        query: Signed[pb.Query],
        place: Place,
        reason: Reason,
        manifest_sha256: bytes = b"",
        sealed_bytes: int = 0,
    ) -> int:
        """The entry of how an access ended."""
        body = ledger_pb2.AccessAnswered(
            query_id=query.id, reason=reason.wire, manifest_sha256=manifest_sha256, sealed_bytes=sealed_bytes
        )
        return keeper.append("access_answered", body, self.at, place)

    def manifest(
        self, keeper: Keeper, query: Signed[pb.Query], decision: Decision, **changes: Any
    ) -> Signed[pb.Manifest]:
        """What a node signs about an answer of two records of the first section."""
        coverage = [
            pb.SectionCoverage(section=path, reason=each.wire, returned=2 if path == decision.granted[0] else 0)
            for path, each in decision.sections
        ]
        body = pb.Manifest(
            **self.common(keeper.party),
            query_id=query.id,
            grant_id=query.payload.grant_id,
            coverage=coverage,
            records=2,
            records_sha256=sha256(b"records").digest(),
            slice_seq=keeper.chained[keeper.entries[-1].place],
        )
        signed = self._signed(st.MANIFEST, body, changes, [keeper.party.online])
        self.statements[signed.id] = signed
        return signed

    # ------------------------------------------------------------------------------------------ the bundle

    def bundle(self, path: Path, *, fetched_at: int | None = None, keepers: Sequence[Keeper] | None = None) -> Bundle:
        """Everything, as an auditor has it.

        Args:
            path: of the file.
            fetched_at: by her clock; long after everything that happened.
            keepers: whose ledgers; all of them.
        """
        meta = {
            "federation": self.federation,
            "broker_root": did_text(self.broker.party.id),
            "operator": did_text(self.operator.id),
            "scope": "{}",
        }
        bundle = Bundle.create(path, meta)
        gone = self.missing
        with bundle.transaction() as db:
            for keeper in keepers or (self.broker, *self.nodes.values()):
                self._write(bundle, keeper, fetched_at if fetched_at is not None else self.at + DAY)
            bundle.add_statements(each for each in self.statements.values() if each.id not in gone)
            numbers = dict(db.execute("SELECT root, ledger FROM ledger").fetchall())
            bundle.add_erased(
                (each.id, numbers[each.keeper.party.id], each.position, each.at, "ferpa-5y") for each in self.erased
            )
        return bundle

    def _write(self, bundle: Bundle, keeper: Keeper, fetched_at: int) -> None:
        number = bundle.add_ledger(keeper.party.id, kind=keeper.kind, name=keeper.party.name, origin=keeper.origin)
        leaves, frontier = keeper.leaves(), Frontier()
        frontier.extend([leaf_hash(each) for each in leaves])
        bundle.add_entries(
            entry_row(
                number,
                Position(position),
                leaf_hash(leaf),
                None if keeper.entries[position].hidden else leaf,
                federation=self.federation,
                root=keeper.party.id,
            )
            for position, leaf in enumerate(leaves)
        )
        size, root = len(leaves), frontier.root()
        bundle.db.execute(
            "UPDATE ledger SET fetched = ?1, head_size = ?1, head_root = ?2 WHERE ledger = ?3", (size, root, number)
        )
        for each, cosigners in keeper.checkpoints or [(size, [])]:
            bundle.add_checkpoint(number, each, root, b"", vkey="", cosigners=cosigners, visit=1, fetched_at=fetched_at)

    # ---------------------------------------------------------------------------------------------- inside

    def place(self, signed: Signed[Any]) -> Place | None:
        """The slice that a statement is about."""
        if signed.kind in TO_ALL:
            return None
        grant = signed
        while grant.kind is not st.GRANT:
            grant = self.statements[subject_of(grant)]
        return grant.payload.slice.node, grant.payload.slice.handle

    def _opened(self, signed: Signed[Any]) -> bytes:
        """The root of a node that is admitted for the first time."""
        payload = signed.payload
        if signed.kind is not st.ADMISSION or payload.kind != pb.PRINCIPAL_KIND_NODE or payload.root in self.nodes:
            return b""
        origin = f"{FEDERATION}/node/{payload.root.hex()[:16]}"
        self.nodes[payload.root] = Keeper(self.organization(payload.name), origin, "node", self.at)
        return bytes(payload.root)

    def _concerned(self, signed: Signed[Any], first: bytes) -> list[bytes]:
        if signed.kind in TO_ALL:
            return list(self.nodes)
        if signed.kind not in (st.REVOCATION, st.DELEGATION):
            return []
        place = self.place(signed)
        return [] if place is None else [place[0]]

    def _standing(self) -> list[Signed[Any]]:
        """What holds of everybody now: admissions, then certificates, then suspensions."""
        found: dict[str, list[Signed[Any]]] = {"admission": [], "cert": [], "suspension": []}
        for entry in self.broker.entries:
            if entry.event == "statement_recorded":
                signed = self.statements[entry.body.statement_id]
                if signed.kind in TO_ALL:
                    standing = self.facts.standing(signed.payload.root)
                    for name, each in found.items():
                        if getattr(standing, name) is signed:
                            each.append(signed)
        return [*found["admission"], *found["cert"], *found["suspension"]]

    def _bring_chain(self, keeper: Keeper, signed: Signed[Any]) -> None:
        if signed.kind not in (st.REVOCATION, st.DELEGATION):
            return
        chain: list[Signed[Any]] = []
        each = self.statements[subject_of(signed)]
        while each.kind is not st.GRANT:
            chain.insert(0, each)
            each = self.statements[subject_of(each)]
        for link in (each, *chain):
            known = keeper.facts.capability(link.id) if link.kind is st.GRANT else keeper.facts.delegated(link.id)
            if known is None:
                keeper.recorded(link, self.at, subject=subject_of(link), place=self.place(link))

    def _counted(self, keeper: Keeper, facts: Facts) -> tuple[Facts, tuple[int, ...] | None]:
        links = (facts.grant, *facts.delegations)
        if not any(link is not None and link.payload.max_uses for link in links):
            return facts, None
        uses = tuple(0 if link is None else keeper.uses.get(link.id, 0) for link in links)
        debited = tuple(
            used + 1 if link is not None and link.payload.max_uses else used
            for link, used in zip(links, uses, strict=True)
        )
        return replace(facts, uses=uses), debited


def subject_of(signed: Signed[Any]) -> bytes:
    """What a statement is about, as broker and node name it."""
    payload = signed.payload
    if signed.kind is st.GRANT:
        return b""
    fields = {
        "endorsement": "grant_id",
        "delegation": "parent_id",
        "revocation": "target_id",
        "acknowledgement": "target_id",
    }
    return bytes(getattr(payload, fields.get(signed.kind.name, "root")))
