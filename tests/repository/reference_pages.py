"""The reference pages that are made from the code: reasons, sections, and the limits of SPEC.md §9.

Run ``python -m tests.repository.reference_pages`` to write them; a test compares them with the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, record_pb2, rules_pb2, statement_pb2 as pb
from permslip.reasons import Reason
from permslip.sections import LEAVES, PATHS, SENSITIVE, expand

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"

_HOLDS = {
    "identity.demographics": "name, birth date, sex, languages, local numbers",
    "personal.activities": "extracurricular activities",
    "personal.assessments": "supplemental achievement data: the school's and teachers' own tests",
    "personal.attendance": "attendance, with the reason where the source gives one",
    "personal.discipline": "discipline incidents and what followed",
    "personal.experience": "work and service experience",
    "personal.health": "health notes",
    "personal.mastery": "standards and what level was reached",
    "personal.plan": "the plan that learner, family and school made together",
    "personal.services": "programs and services received",
    "personal.work_habits": "feedback on work habits, such as assignments on time",
    "portfolio.works": "personal best work products, with their files",
    "transcript.assessments.district": "district achievement data",
    "transcript.assessments.state": "state achievement data",
    "transcript.courses": "courses taken and learning levels reached",
    "transcript.credits": "credit totals and honours as the school states them",
    "transcript.grades": "grades",
    "variability.background.adverse_experiences": "adverse experiences",
    "variability.background.context": "where and with whom the learner lives and learns",
    "variability.background.safety": "safety",
    "variability.background.socioeconomic_status": "socioeconomic status",
    "variability.cognition": "dated observations on cognition, with their context",
    "variability.content": "dated observations on content knowledge, with their context",
    "variability.social_emotional.identity": "identity",
    "variability.social_emotional.skills": "social and emotional skills",
    "variability.social_emotional.stereotype_threat": "stereotype threat",
    "voice.goals": "what the learner aims at, in her words",
    "voice.interests": "what interests the learner, in her words",
    "voice.reflections": "what the learner thinks of her learning, in her words",
}

_FORMS = {
    rules_pb2.Rule.FORM_NAME: "name",
    rules_pb2.Rule.FORM_SECTION: "section path",
    rules_pb2.Rule.FORM_LINE: "one line",
    rules_pb2.Rule.FORM_DATE: "day",
    rules_pb2.Rule.FORM_TEXT: "text",
}


def reasons_page() -> str:
    """``docs/reference/reasons.md``."""
    lines = [
        "# Reasons",
        "",
        "Every access is allowed or refused with a reason: one for the slice as a whole, one for each section. This",
        "page says what each means and what a person can do next. It is made from `permslip.reasons`.",
        "",
        "A reason marked «may pass» can turn into an answer by itself: the same question may be asked again later.",
        "",
        "| number | reason | what it says | what to do | may pass |",
        "| ---: | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {reason.value} | `{reason.name}` | {reason.meaning} | {reason.remedy} | {_yes(reason.may_pass)} |"
        for reason in Reason
    ]
    return "\n".join(lines) + "\n"


def sections_page() -> str:
    """``docs/reference/sections.md``."""
    lines = [
        "# Sections",
        "",
        "A learner's records stand in sections. A consent names paths; a path covers the sections below it. A",
        "**sensitive** section is covered only by its own name, never by a path above it: who grants `personal` has",
        "not granted `personal.discipline`. This page is made from `permslip.sections`.",
        "",
        "| section | holds | sensitive |",
        "| --- | --- | --- |",
    ]
    lines += [f"| `{leaf}` | {_HOLDS[leaf]} | {_yes(leaf in SENSITIVE)} |" for leaf in LEAVES]
    lines += [
        "",
        "## Paths that cover several sections",
        "",
        "| path | covers |",
        "| --- | --- |",
    ]
    lines += [
        f"| `{path}` | {', '.join(f'`{leaf}`' for leaf in expand([path]))} |"
        for path in sorted(PATHS.difference(LEAVES))
    ]
    return "\n".join(lines) + "\n"


def limits_table() -> str:
    """The table of SPEC.md §9: every bound that the contract writes beside a field."""
    lines = ["| message | field | type | bound | required |", "| --- | --- | --- | --- | --- |"]
    for descriptor in sorted(_messages(), key=lambda each: each.name):
        for field in descriptor.fields:
            rule = field.GetOptions().Extensions[rules_pb2.rule]
            optional = rule.optional or field.containing_oneof is not None or field.type == FieldDescriptor.TYPE_BOOL
            required = "" if optional else "yes"
            lines.append(
                f"| {descriptor.name} | `{field.name}` | {_type(field)} | {_bound(field, rule)} | {required} |"
            )
    return "\n".join(lines) + "\n"


def _messages() -> Iterator[Descriptor]:
    """Every message that is signed, sealed into a statement, or logged, at any depth."""
    seen: set[str] = set()
    waiting = [kind.message.DESCRIPTOR for kind in st.KINDS.values()]
    waiting += [
        each.DESCRIPTOR
        for each in (pb.Envelope, pb.GrantPrivate, pb.AccessTerms, pb.ContributedContent, ledger_pb2.LogEntry)
    ]
    waiting.append(record_pb2.Record.DESCRIPTOR)
    while waiting:
        descriptor = waiting.pop()
        if descriptor.name in seen:
            continue
        seen.add(descriptor.name)
        yield descriptor
        waiting += [field.message_type for field in descriptor.fields if field.message_type is not None]


def _yes(true: bool) -> str:
    return "yes" if true else ""


def _type(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        name = field.message_type.name
    elif field.enum_type is not None:
        name = field.enum_type.name
    else:
        name = _SCALARS[field.type]
    return f"list of {name}" if field.is_repeated else name


_SCALARS = {
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}


def _bound(field: FieldDescriptor, rule: rules_pb2.Rule) -> str:
    words = []
    if field.is_repeated:
        words.append(f"at most {rule.max_items}" + (", ascending" if rule.ascending else ""))
    if rule.len:
        words.append(f"{rule.len} bytes")
    if rule.max_len:
        words.append(f"at most {rule.max_len} bytes")
    if rule.form:
        words.append(_FORMS[rule.form])
    if rule.max:
        words.append(f"at most {rule.max}")
    return "; ".join(words)


PAGES = {REFERENCE / "reasons.md": reasons_page, REFERENCE / "sections.md": sections_page}


def main() -> None:
    """Write the pages."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for path, page in PAGES.items():
        path.write_text(page(), "utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
