"""Joining what the broker's and a school's own ledger say of the accesses to one slice.

Rules:

- Broker and school are joined by the query's id. What the broker refused never came to the school. A replay has the id
  of the query that it repeats: it is an access of its own, and takes no answer from the first.
- What one of them has and the other lacks, or tells otherwise, is a *difference*: a finding.
- Where a chain has entries that are not for this reader, that it lacks one is a finding only if the hidden ones cannot
  account for it; and only where the whole chain could be read.
- What is under way is no finding: an answer's end is recorded a moment behind it.

Example::

    for access in join(report, settled=17):
        print(access.difference or "both say the same")
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.client.accesses import Access, LedgerSide, SliceReport, hidden_count
from permslip.client.failures import reason_of_code
from permslip.errors import ProofError
from permslip.reasons import Reason
from permslip.slice_chains import ChainEntry

__all__ = ["NOT_ROUTED", "NOT_SERVED", "OTHER_ANSWER", "OTHER_QUERY", "OTHER_SIZE", "join"]

NOT_ROUTED: Final = "the school was asked, and the broker's ledger does not say so"
NOT_SERVED: Final = "the broker passed on an answer of which the school's ledger knows nothing"
OTHER_QUERY: Final = "broker and school name another requester, consent or action for it"
OTHER_ANSWER: Final = "broker and school name different answers"
OTHER_SIZE: Final = "broker and school count different amounts"


def join(report: SliceReport, *, settled: int | None = None, signed: frozenset[bytes] = frozenset()) -> list[Access]:
    """The accesses to one slice, from both chains; who asked is not named yet.

    Args:
        report: the chains.
        settled: number of the last entry of the school's chain that was there before the broker was asked: the broker
            records a query before it routes it, so those it must have. Every entry unless given.
        signed: ids of grants that the caller signed: of what was done under them the broker must tell her.
    """
    broker, school = _Side(report.broker), _Side(report.school)
    pairs: list[tuple[_Decided | None, _Decided | None]] = []
    for query_id in dict.fromkeys([*broker.decided, *school.decided]):
        routed, served = list(broker.decided[query_id]), list(school.decided[query_id])
        # What the broker refused never came to the school.
        pairs += [(each, served.pop(0) if each.reason == Reason.ALLOWED and served else None) for each in routed]
        pairs += [(None, each) for each in served if settled is None or each.entry.seq <= settled]
    alone = sum(one is None for one, _ in pairs)
    all_alone = report.broker_tells and alone > hidden_count(report.broker)
    answered = [one for one, other in pairs if one is not None and other is None and one.ended_with == Reason.ALLOWED]
    can_tell_school = report.error is None and len(answered) > hidden_count(report.school)
    found = []
    for one, other in pairs:
        access = _access(report, one, other)
        if one is None:
            must_tell = all_alone or (not report.broker_tells and access.grant_id in signed)
            access = replace(access, difference=NOT_ROUTED if must_tell else "")
        elif other is None:
            access = replace(access, difference=NOT_SERVED if can_tell_school and one in answered else "")
        else:
            access = replace(access, difference=_difference(one, other))
        found.append(access)
    return sorted(found, key=lambda each: each.decided_at)


class _Decided:
    """One decision of one ledger, and the end of the answer that followed it."""

    def __init__(self, entry: ChainEntry, log: Any) -> None:
        self.entry, self.log = entry, log
        self.reason = reason_of_code(log.reason)
        self.end: ChainEntry | None = None

    @property
    def answer(self) -> Any:
        return self.end.entry.access_answered if self.end is not None and self.end.entry is not None else None

    @property
    def ended_with(self) -> Reason | None:
        return None if self.answer is None else reason_of_code(self.answer.reason)

    @property
    def side(self) -> LedgerSide:
        entries = (self.entry,) if self.end is None else (self.entry, self.end)
        sealed = 0 if self.answer is None else self.answer.sealed_bytes
        return LedgerSide(self.reason, self.log.decided_at, self.ended_with, sealed, entries)


class _Side:
    """The decisions of one chain, by query, in order."""

    def __init__(self, entries: Sequence[ChainEntry]) -> None:
        self.decided: defaultdict[bytes, list[_Decided]] = defaultdict(list)
        for entry in entries:
            if entry.entry is None:
                continue
            if entry.event == "access_decided":
                log = entry.entry.access_decided
                self.decided[log.query_id].append(_Decided(entry, log))
            elif entry.event == "access_answered":
                # A replay has the id of the query that it repeats; the answer was to that one.
                open_ones = [
                    each
                    for each in self.decided.get(entry.entry.access_answered.query_id, ())
                    if each.reason == Reason.ALLOWED and each.end is None
                ]
                if open_ones:
                    open_ones[0].end = entry


def _access(report: SliceReport, one: _Decided | None, other: _Decided | None) -> Access:
    decided, told = one or other, other or one
    if decided is None or told is None:
        raise ProofError("an access that neither ledger knows of.")
    return Access(
        query_id=decided.log.query_id,
        node=report.node,
        node_name=report.node_name,
        handle=report.handle,
        requester=decided.log.requester.root,
        requester_name="",
        grant_id=decided.log.grant_id,
        action=_name(pb.Action, decided.log.action, "ACTION_"),
        purpose=_name(pb.Purpose, decided.log.purpose, "PURPOSE_"),
        sections=tuple((each.section, reason_of_code(each.reason)) for each in told.log.sections),
        broker=one.side if one is not None else None,
        school=other.side if other is not None else None,
    )


def _difference(one: _Decided, other: _Decided) -> str:
    for name in ("requester", "grant_id", "action"):
        if getattr(one.log, name) != getattr(other.log, name):
            return OTHER_QUERY
    if one.ended_with == Reason.ALLOWED and other.reason != Reason.ALLOWED:
        return OTHER_ANSWER
    if one.ended_with == other.ended_with == Reason.ALLOWED:
        manifests = one.answer.manifest_sha256, other.answer.manifest_sha256
        if all(manifests) and manifests[0] != manifests[1]:
            return OTHER_ANSWER
        if one.answer.sealed_bytes != other.answer.sealed_bytes:
            return OTHER_SIZE
    return ""


def _name(names: Any, value: int, prefix: str) -> str:
    if not value:
        return ""
    try:
        name: str = names.Name(value)
    except ValueError:
        return str(value)
    return name.removeprefix(prefix).lower()
