"""Plays scenarios: sentences that a lawyer can read, played with real keys, real statements and the real decision.

A scenario is a title, who takes part, and a story. A step of the story is a sentence, alone or with details after a
colon. The sentences there are::

    Maria grants Tutor at Lincoln            called, for, replaces, and the terms: sections, actions, from, until,
                                             records, uses, pass on
    Maria and Jon grant Tutor at Lincoln
    Lincoln confirms consent                 revokers, until
    Lincoln refuses consent                  the verdict
    Tutor passes consent on to Club          called, and the terms; unjudged: as by a broker that judges nothing
    Maria revokes consent                    as: guardian, grantee, delegator or node
    Operator admits Tutor as provider        until
    Operator suspends Tutor
    Tutor changes its key                    until
    3 days pass
    Tutor asks for transcript.grades         under, through, answer and what else is asked or known

A step may say ``refused`` among its details: then it must not be recorded, for the field or the kind of error named;
or ``kept in a drawer``: signed, but never deposited.
Times are ``now``, ``in 3 days`` or ``3 days ago``; the clock stands still between steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final

import yaml

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.decision import Decision
from permslip.errors import MalformedError, PermslipError
from permslip.reasons import Reason
from permslip.sections import expand
from permslip.statements import Signed
from tests.scenarios.world import DAY, HOUR, MINUTE, Party, World

FOLDER: Final = Path(__file__).parent
_UNITS: Final = {"millisecond": 1, "second": 1000, "minute": MINUTE, "hour": HOUR, "day": DAY}
_TIME: Final = re.compile(r"(?:in )?(\d+) (\w+?)s?( ago)?")


def scenarios() -> dict[str, dict[str, Any]]:
    """Title → scenario, of all files."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for each in yaml.safe_load(path.read_text("utf-8")):
            title = f"{path.stem}: {each['scenario']}"
            assert title not in found, f"two scenarios are called {title!r}"
            found[title] = each
    return found


class Stage:
    """Plays one scenario.

    Args:
        scenario: as read from the file.
    """

    def __init__(self, scenario: dict[str, Any]) -> None:
        self.world = World()
        self.parties: dict[str, Party] = {"Operator": self.world.operator}
        self.first_keys: dict[str, Party] = {}
        self.things: dict[str, Signed[Any]] = {}
        self.grant_of: dict[bytes, Signed[pb.Grant]] = {}
        self.keys: dict[str, int] = {}
        self.reasons: set[Reason] = set()
        for kind, names in scenario["parties"].items():
            make = {
                "schools": self.world.node,
                "providers": self.world.provider,
                "people": self.world.person,
                "strangers": self.world.organization,
            }[kind]
            for name in names:
                self.parties[name] = make(name)
        self.story = scenario["story"]

    def play(self) -> set[Reason]:
        """Play the whole story; returns every reason that was given."""
        for step in self.story:
            sentence, details = (step, None) if isinstance(step, str) else next(iter(step.items()))
            try:
                self._step(sentence, details)
            except AssertionError as error:
                raise AssertionError(f"«{sentence}»: {error}") from None
        return self.reasons

    def _step(self, sentence: str, details: Any) -> None:
        for pattern, action in self.SENTENCES.items():
            found = re.fullmatch(pattern, sentence)
            if found:
                action(self, *found.groups(), details if details is not None else {})
                return
        raise AssertionError("no such sentence")

    # ------------------------------------------------------------------------------------------ sentences

    def grant(self, signers: str, grantee: str, school: str, details: dict[str, Any]) -> None:
        terms = self._terms(details)
        if "for" in details:
            terms["purpose"] = pb.Purpose.Value(f"PURPOSE_{details['for'].upper()}")
        if "replaces" in details:
            terms["supersedes"] = sorted(self.things[each].id for each in details["replaces"])
        grant = self.world.grant(
            [self.parties[name] for name in signers.split(" and ")],
            self.parties[school],
            self.parties[grantee],
            **terms,
        )
        self._record(grant, details)
        self.grant_of[grant.id] = grant

    def confirm(self, school: str, name: str, details: dict[str, Any]) -> None:
        changes: dict[str, Any] = {"guardians": [self.parties[each] for each in details.get("revokers", [])]}
        if "until" in details:
            changes["valid_until"] = self._time(details["until"])
        self._record(self.world.endorsement(self.things[name], self.parties[school], **changes), details)

    def refuse(self, school: str, name: str, verdict: str) -> None:
        number = pb.EndorsementVerdict.Value(f"ENDORSEMENT_VERDICT_{verdict}")
        self.world.record(self.world.endorsement(self.things[name], self.parties[school], verdict=number))

    def pass_on(self, giver: str, name: str, party: str, details: dict[str, Any]) -> None:
        parent = self.things[name]
        delegation = self.world.delegation(self.parties[giver], parent, self.parties[party], **self._terms(details))
        if details.get("unjudged"):
            # As a broker would that does not judge what it is given.
            self.things[details["called"]] = delegation
            self.world.facts.record(delegation)
        else:
            self._record(delegation, details)
        self.grant_of[delegation.id] = self.grant_of[parent.id]

    def revoke(self, who: str, name: str, details: dict[str, Any]) -> None:
        target, by = self.things[name], self.parties[who]
        school = next(each for each in self.parties.values() if each.id == self.grant_of[target.id].payload.slice.node)
        role = details.get("as", "guardian").upper()
        self._record(self.world.revocation(by, target, school, role), details)

    def admit(self, party: str, kind: str, details: dict[str, Any]) -> None:
        until = {"valid_until": self._time(details["until"])} if "until" in details else {}
        number = pb.PrincipalKind.Value(f"PRINCIPAL_KIND_{kind.upper()}")
        self.world.record(self.world.admission(self.parties[party], number, **until))

    def suspend(self, party: str, _details: dict[str, Any]) -> None:
        self.world.record(self.world.suspension(self.parties[party]))

    def change_key(self, party: str, details: dict[str, Any]) -> None:
        self.first_keys.setdefault(party, self.parties[party])
        number = self.keys[party] = self.keys.get(party, 1) + 1
        self.parties[party] = self.parties[party].with_online_key(number)
        until = {"valid_until": self._time(details["until"])} if "until" in details else {}
        self.world.record(self.world.key_cert(self.parties[party], number, **until))

    def time_passes(self, amount: str, unit: str, _details: dict[str, Any]) -> None:
        self.world.pass_time(int(amount) * _UNITS[unit])

    def ask(self, who: str, sections: str, details: dict[str, Any]) -> None:
        by = self.first_keys[who] if details.get("with") == "its first key" else self.parties[who]
        if "signed by" in details:
            by = by.signing_as(self.parties[details["signed by"]])
        changes: dict[str, Any] = {}
        if "dated" in details:
            changes["created_at"] = self._time(details["dated"])
        if "dated" in details or "lasting" in details:
            begin = changes.setdefault("created_at", self.world.now)
            changes["expires_at"] = begin + self._span(details.get("lasting", "1 minute"))
        if "action" in details:
            changes["action"] = pb.Action.Value(f"ACTION_{details['action'].upper()}")
        changes |= self._days(details)
        query = self.world.query(
            by,
            self.things[details["under"]],
            [each.strip() for each in sections.split(",")],
            [self.things[each] for each in details.get("through", [])],
            **changes,
        )
        known: dict[str, Any] = {"withheld": frozenset(leaf for leaf in details.get("kept back", []))}
        if "used" in details:
            used = details["used"]
            known["uses"] = tuple(used) if isinstance(used, list) else (used,)
        if details.get("continues"):
            known["use_cost"] = 0
        if details.get("asked before"):
            known["seen"] = True
        if "node is" in details:
            known["unfit"] = Reason[details["node is"]]
        decision = self.world.ask(query, **known)
        self.reasons |= {decision.reason, *(reason for _, reason in decision.sections)}
        self._check_answer(decision, query, details["answer"])

    # ------------------------------------------------------------------------------------------ inside

    def _check_answer(self, decision: Decision, query: Signed[pb.Query], answer: Any) -> None:
        asked = expand(query.payload.sections)
        if answer == "allowed":
            assert decision.reason == Reason.ALLOWED, f"refused because {decision.reason.name}"
            assert decision.granted == asked, f"only {decision.granted}"
        elif isinstance(answer, str):
            reason = Reason[answer.removeprefix("refused because ")]
            assert decision.reason == reason, f"got {decision.reason.name}"
            assert not decision.granted
        else:
            expected = {leaf: Reason["ALLOWED" if word == "allowed" else word] for leaf, word in answer.items()}
            assert dict(decision.sections) == expected, f"got {decision.sections}"

    def _record(self, signed: Signed[Any], details: dict[str, Any]) -> None:
        if "called" in details:
            self.things[details["called"]] = signed
        if details.get("kept in a drawer"):
            return
        expected = details.get("refused")
        try:
            self.world.record(signed)
        except PermslipError as error:
            name = error.field if isinstance(error, MalformedError) else type(error).__name__
            if expected != name:
                raise AssertionError(f"refused because of {name}: {error}") from None
            return
        assert expected is None, f"recorded, but expected to be refused because of {expected}"

    def _terms(self, details: dict[str, Any]) -> dict[str, Any]:
        terms = self._days(details)
        if "sections" in details:
            terms["sections"] = sorted(details["sections"])
        if "actions" in details:
            terms["actions"] = sorted(pb.Action.Value(f"ACTION_{each.upper()}") for each in details["actions"])
        for name, field in (("from", "not_before"), ("until", "expires_at")):
            if name in details:
                terms[field] = self._time(details[name])
        if "uses" in details:
            terms["max_uses"] = details["uses"]
        if "pass on" in details:
            terms["delegation_depth"] = details["pass on"]["times"]
            terms["onward_parties"] = sorted(self.parties[each].id for each in details["pass on"]["to"])
        return terms

    def _days(self, details: dict[str, Any]) -> dict[str, Any]:
        days = details.get("records", {})
        return {f"records_{end}": str(day) for end, day in days.items()}

    def _time(self, words: str) -> int:
        return self.world.now if words == "now" else self.world.now + self._span(words)

    @staticmethod
    def _span(words: str) -> int:
        found = _TIME.fullmatch(words)
        assert found, f"no such time: {words}"
        span = int(found[1]) * _UNITS[found[2]]
        return -span if found[3] else span

    SENTENCES: ClassVar[dict[str, Callable[..., None]]] = {
        r"(\w+(?: and \w+)*) grants? (\w+) at (\w+)": grant,
        r"(\w+) confirms ([\w ]+)": confirm,
        r"(\w+) refuses ([\w ]+)": refuse,
        r"(\w+) passes ([\w ]+) on to (\w+)": pass_on,
        r"(\w+) revokes ([\w ]+)": revoke,
        r"Operator admits (\w+) as (\w+)": admit,
        r"Operator suspends (\w+)": suspend,
        r"(\w+) changes its key": change_key,
        r"(\d+) (\w+?)s? pass(?:es)?": time_passes,
        r"(\w+) asks for ([\w., ]+)": ask,
    }
