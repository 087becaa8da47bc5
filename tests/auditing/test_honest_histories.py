"""Whatever honest keepers go through, in whatever order: replay and reconcile find nothing."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings, strategies as s

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.auditing.reconciling import reconcile
from permslip.auditing.replaying import replay
from permslip.errors import PermslipError
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.auditing.ledgers import Audited
from tests.scenarios.world import MINUTE, Party

STEPS = (
    "grant",
    "endorse",
    "refuse",
    "delegate",
    "revoke",
    "revoke delegation",
    "suspend",
    "admit",
    "rotate",
    "ask",
    "ask on",
    "ask again",
    "cut off",
    "reconnect",
    "wait",
)
SECTIONS = (("transcript.grades",), ("transcript",), ("personal.health", "transcript.courses"), ("no.such",))


class History:
    """A federation to which things happen; what is not allowed does not happen."""

    def __init__(self) -> None:
        self.fed = fed = Audited()
        self.schools = [fed.node("school"), fed.node("library")]
        self.asking: dict[str, Party] = {name: fed.provider(name) for name in ("tutor", "club")}
        self.mother = fed.person("mother")
        self.grants: list[Signed[pb.Grant]] = []
        self.delegations: list[tuple[Signed[pb.Grant], Signed[Any]]] = []
        self.queries: list[Signed[pb.Query]] = []
        self.seq = 1

    def happen(self, step: str, pick: int) -> None:
        """One thing, and afterwards everybody who is attached has what was pushed."""
        fed, grants = self.fed, self.grants
        grant = grants[pick % len(grants)] if grants else None
        if step == "grant":
            self._grant(pick)
        elif step == "wait":
            fed.pass_time(pick * MINUTE)
        elif step == "suspend":
            fed.record(fed.suspension(self.asking["club"]))
        elif step == "admit":
            fed.record(fed.admission(self.asking["club"], pb.PRINCIPAL_KIND_PROVIDER))
        elif step == "rotate":
            self.seq += 1
            self.asking["tutor"] = self.asking["tutor"].with_online_key(self.seq)
            fed.record(fed.key_cert(self.asking["tutor"], self.seq))
        elif step == "cut off":
            fed.offline.add(self.schools[pick % 2].id)
        elif step == "reconnect":
            fed.offline.clear()
            for keeper in fed.nodes.values():
                fed.deliver(keeper)
        elif step == "ask again" and self.queries:
            fed.ask_again(self.queries[pick % len(self.queries)])
        elif grant is not None:
            self._under(step, pick, grant)

    def _grant(self, pick: int) -> None:
        superseded = [self.grants[-1].id] if pick % 5 == 0 and self.grants else []
        school = self.schools[pick % 2]
        if superseded and self.grants[-1].payload.slice.node != school.id:
            superseded = []
        grant = self.fed.grant(
            self.mother,
            school,
            self.asking["tutor"],
            delegation_depth=1,
            onward_parties=[self.asking["club"].id],
            max_uses=pick % 4,
            supersedes=superseded,
            expires_at=self.fed.now + (1 + pick) * 10 * MINUTE,
        )
        self.grants.append(self.fed.record(grant))

    def _under(self, step: str, pick: int, grant: Signed[pb.Grant]) -> None:
        fed = self.fed
        school = next(each for each in self.schools if each.id == grant.payload.slice.node)
        if step in ("endorse", "refuse") and school.id not in fed.offline:
            refused = {"verdict": pb.ENDORSEMENT_VERDICT_OBJECTED} if step == "refuse" else {}
            capability = fed.facts.capability(grant.id)
            if capability is not None and (refused or capability.ended == Reason.ALLOWED):
                fed.endorse(grant, school, **refused)
        elif step == "delegate":
            delegation = fed.record(fed.delegation(self.asking["tutor"], grant, self.asking["club"]))
            self.delegations.append((grant, delegation))
        elif step == "revoke":
            fed.revoke(self.mother, grant, school)
        elif step == "revoke delegation" and self.delegations:
            above, delegation = self.delegations[pick % len(self.delegations)]
            school = next(each for each in self.schools if each.id == above.payload.slice.node)
            fed.revoke(self.asking["tutor"], delegation, school, "DELEGATOR")
        elif step == "ask":
            ends = Reason.TIMED_OUT if pick % 7 == 0 else Reason.ALLOWED
            unfit = Reason.NO_LEASE if pick % 6 == 0 else Reason.ALLOWED
            sections = SECTIONS[pick % len(SECTIONS)]
            asked = fed.access(self.asking["tutor"], grant, sections, ends=ends, unfit=unfit)
            self.queries.append(asked.query)
        elif step == "ask on" and self.delegations:
            above, delegation = self.delegations[pick % len(self.delegations)]
            self.queries.append(fed.access(self.asking["club"], above, chain=[delegation]).query)


@settings(max_examples=40)
@given(s.lists(s.tuples(s.sampled_from(STEPS), s.integers(0, 12)), max_size=40))
def test_an_honest_history_replays_and_reconciles_clean(steps: list[tuple[str, int]]) -> None:
    history = History()
    for step, pick in [("grant", 0), ("endorse", 0), ("ask", 1), *steps]:
        try:
            history.happen(step, pick)
        except PermslipError:
            continue
    # Who gives an auditor its ledger is attached, and so has what was pushed.
    history.happen("reconnect", 0)

    with (
        TemporaryDirectory() as folder,
        history.fed.bundle(Path(folder) / "audit.db", fetched_at=history.fed.at) as bundle,
    ):
        results = [check(bundle, history.fed.trust) for check in (replay, reconcile)]
        told = bundle.db.execute("SELECT step, code, ledger, position, message, details FROM finding").fetchall()

    assert told == []
    assert [each.word for each in results] == ["clean", "clean"]
