"""The report as a page: findings first, in words; whole by itself; nothing of the data becomes markup."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from itertools import pairwise
from pathlib import Path

import pytest

from permslip.auditing.bundle import Bundle
from permslip.auditing.codes import Code
from permslip.auditing.reporting import write_report
from permslip.errors import ConfigurationError
from permslip.quantities import Millis
from tests.auditing.report_bundles import DAY, START, STEPS, HandMade, key, some_id
from tests.auditing.report_reader import ReportReader, read

SECTIONS = ["findings", "unchecked", "figures", "checkpoints", "check", "ledgers", "glossary"]
EVIL = "<script>alert(1)</script> \"quoted\" 'too' & \x00\x1b[31m\x85 {{x}} #eval[1] $a$"


@pytest.fixture
def made(tmp_path: Path) -> HandMade:
    return HandMade(tmp_path / "audit.db")


def written(made: HandMade) -> str:
    path = made.bundle.path.with_name("report.html")
    assert write_report(made.bundle, path, now=lambda: Millis(START)) == path
    return path.read_text("utf-8")


def shown(made: HandMade) -> ReportReader:
    return read(written(made))


def full(made: HandMade) -> HandMade:
    """A bundle in which every part of the report has something to show."""
    tutors = made.ledgers().provider("Reading Tutors")
    for number in range(5):
        made.access(number, at=START + number * DAY, requester=tutors, learner=number)
    made.access("late", broker="GRANT_REVOKED", requester=tutors)
    made.access("kept", school="WITHHELD", requester=tutors)
    made.add(1, "request_refused", recorded_at=START, reason="BAD_SIGNATURE")
    made.add(1, None)
    made.granted(some_id("grant"), revoked_at=START + DAY)
    made.bundle.add_erased([(some_id("old"), 1, 3, START, "seven-years")])
    made.bundle.add_checkpoint(
        1,
        11,
        some_id("root"),
        b"fed.example/broker\n11\nroot=\n",
        vkey="fed.example/broker+00000000+AQ==",
        cosigners=[{"name": "fed.example/node/1", "vkey": "v", "timestamp": START // 1000}],
        visit=1,
        fetched_at=START,
    )
    return made.checked()


def test_a_clean_bundle_says_no_fault_and_what_that_means(made: HandMade) -> None:
    page = shown(full(made))

    assert "No fault was found." in page.texts[""]
    assert "Nothing was removed, altered, added or reordered" in page.texts["findings"]
    assert "Fault:" not in page.text


def test_sections_stand_in_the_order_in_which_they_matter(made: HandMade) -> None:
    page = shown(full(made))

    assert [each["id"] for each in page.named("section")] == SECTIONS


def test_headings_go_down_one_level_at_a_time(made: HandMade) -> None:
    made.ledgers().found("verify", [(Code.LEAF_HASH, "fault")])
    levels = [level for level, _ in shown(made).headings]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("code", list(Code))
def test_every_code_is_told_with_meaning_remedy_and_place(made: HandMade, code: Code) -> None:
    made.ledgers().found("verify", [(code, "fault")], "expected this, got that.")

    found = shown(made).texts["findings"]

    assert code.meaning in found
    assert code.remedy in found
    assert code in found
    assert "Entry 7 of the broker's ledger: expected this, got that." in found


def test_a_fault_is_the_first_word_and_counted(made: HandMade) -> None:
    made.ledgers().checked("replay", "reconcile")
    made.found("verify", [(Code.LEAF_HASH, "fault") for _ in range(30)])

    page = shown(made)

    assert "30 faults were found." in page.texts[""]
    assert "and 26 more" in page.texts["findings"]
    assert page.texts["findings"].count("something differs.") == 4


def test_warnings_are_findings_and_notes_are_not(made: HandMade) -> None:
    made.ledgers().checked("replay", "reconcile")
    made.add(1, "ledger_opened")
    made.found("verify", [(Code.COSIGNATURE_NONE, "warning"), (Code.EVIDENCE_ERASED, "note")])

    page = shown(made)

    assert "No fault was found." in page.texts[""]
    assert "1 warning asks for attention." in page.texts[""]
    assert Code.COSIGNATURE_NONE.meaning in page.texts["findings"]
    assert Code.EVIDENCE_ERASED.meaning not in page.texts["findings"]
    assert Code.EVIDENCE_ERASED.meaning in page.texts["unchecked"]


@pytest.mark.parametrize("missing", STEPS)
def test_a_check_that_was_not_made_is_never_no_fault(made: HandMade, missing: str) -> None:
    made.ledgers().checked(*(step for step in STEPS if step != missing))
    made.add(1, "ledger_opened")

    page = shown(made)

    assert "Not everything was checked." in page.texts[""]
    assert "No fault was found." not in page.texts[""]
    assert f"permslip audit {missing}" in page.texts["unchecked"]


def test_a_check_that_could_not_be_made_is_named(made: HandMade) -> None:
    made.ledgers().checked("verify", "reconcile")
    with pytest.raises(ConfigurationError), made.bundle.findings("replay"):
        raise ConfigurationError("is of another federation.", key="federation")

    page = shown(made)

    assert "could not be made" in page.texts["findings"]
    assert "This check could not be made." in page.texts["unchecked"]


def test_hidden_and_erased_things_are_named_as_unchecked(made: HandMade) -> None:
    unchecked = shown(full(made)).texts["unchecked"]

    assert "Entries that came as a hash alone" in unchecked
    assert "seven-years" in unchecked


def test_an_empty_bundle_says_that_nothing_was_checked(made: HandMade) -> None:
    page = shown(made)

    assert "Nothing was checked." in page.texts[""]
    assert "No access stands in the ledgers" in page.texts["figures"]
    assert "holds no checkpoint" in page.texts["checkpoints"]


def test_the_checkpoint_is_shown_with_size_root_and_cosigners(made: HandMade) -> None:
    checkpoint = shown(full(made)).texts["checkpoints"]

    assert "11" in checkpoint
    assert base64.b64encode(some_id("root")).decode() in checkpoint
    assert "fed.example/node/1 (14 Oct 2026 17:46 UTC)" in checkpoint


def test_only_the_newest_checkpoint_of_a_ledger_is_shown(made: HandMade) -> None:
    full(made)
    made.bundle.add_checkpoint(
        1, 12, some_id("newer"), b"note", vkey="fed.example/broker+1+AQ", cosigners=[], visit=2, fetched_at=START
    )

    checkpoint = shown(made).texts["checkpoints"]

    assert base64.b64encode(some_id("newer")).decode() in checkpoint
    assert base64.b64encode(some_id("root")).decode() not in checkpoint
    assert "nobody" in checkpoint


def test_names_and_messages_never_become_markup(tmp_path: Path) -> None:
    made = HandMade(tmp_path / "audit.db", federation=EVIL)
    made.ledgers(school=EVIL)
    made.access(1, requester=made.provider(EVIL), purpose=EVIL)
    made.access(2, broker=EVIL)
    made.add(1, None)
    made.bundle.add_erased([(some_id("old"), 1, 3, START, EVIL)])
    made.bundle.add_checkpoint(
        1,
        3,
        some_id("root"),
        EVIL.encode() + b"\xff",
        vkey=EVIL,
        cosigners=[{"name": EVIL, "vkey": "v", "timestamp": 1}],
        visit=1,
        fetched_at=START,
    )
    made.found("verify", [(Code.LEAF_HASH, "fault"), (Code.LEAF_HIDDEN, "note")], EVIL)
    made.bundle.db.execute("UPDATE finding SET code = ? WHERE severity = 'fault'", (EVIL,))

    page = shown(made)

    assert page.named("script") == []
    assert "<script>alert(1)</script>" in page.texts["findings"]
    assert "\x00" not in page.text
    assert "\x1b" not in page.text
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_what_others_wrote_into_the_json_columns_does_not_break_the_report(made: HandMade) -> None:
    full(made)
    made.bundle.db.execute("UPDATE checkpoint SET cosigners = '{nonsense'")
    made.bundle.db.execute("UPDATE run SET counts = '[1, 2]'")
    made.bundle.set_meta("scope", "[]")

    assert "nobody" in shown(made).texts["checkpoints"]


def test_nothing_comes_from_elsewhere_and_nothing_runs(made: HandMade) -> None:
    html = written(full(made))
    page = read(html)

    assert {name for name, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe", "object", "base", "form"})
    for _, attributes in page.tags:
        assert all(value is None or "://" not in value for name, value in attributes.items() if name != "xmlns")
        assert "style" not in attributes
        assert "src" not in attributes
    assert all((each["href"] or "").startswith("#") for each in page.named("a"))
    assert "url(" not in html.replace("url(#", "")
    assert "@import" not in html


def test_the_policy_allows_the_pages_own_style_sheet_and_nothing_else(made: HandMade) -> None:
    html = written(full(made))
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    policy = next(each["content"] for each in read(html).named("meta") if each.get("http-equiv"))

    assert style is not None
    assert policy is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")


def test_tables_have_captions_and_heads_and_drawings_a_title_and_words(made: HandMade) -> None:
    page = shown(full(made))

    assert len(page.named("caption")) == len(page.named("table")) > 5
    assert all(each.get("scope") in {"col", "row"} for each in page.named("th"))
    ids = [each["id"] for _, each in page.tags if "id" in each]
    assert len(ids) == len(set(ids))
    for drawing in page.named("svg"):
        assert drawing["role"] == "img"
        assert set((drawing["aria-labelledby"] or "").split()) <= set(ids)
    assert all((each["href"] or "")[1:] in ids for each in page.named("a"))


def test_only_the_owner_can_read_the_file(made: HandMade) -> None:
    path = made.bundle.path.with_name("report.html")
    path.write_text("older", "utf-8")
    path.chmod(0o644)

    written(made)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(each.name for each in path.parent.iterdir()) == ["audit.db", "report.html"]


def test_a_file_that_cannot_be_written_is_named(made: HandMade, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(os.fspath(tmp_path / "none" / "r.html"))):
        write_report(made.bundle, tmp_path / "none" / "r.html")


def test_the_bundle_stays_as_it_was(made: HandMade) -> None:
    full(made)
    before = "\n".join(made.bundle.db.iterdump())

    written(made)
    written(made)

    assert "\n".join(made.bundle.db.iterdump()) == before
    assert made.bundle.db.execute("SELECT count(*) FROM sqlite_temp_schema").fetchone() == (0,)


def test_a_bundle_of_which_columns_were_emptied_is_still_reported(made: HandMade) -> None:
    full(made)
    made.bundle.db.execute("UPDATE entry SET requester = NULL, decided_at = NULL, purpose = NULL, handle = NULL")

    assert "accesses were asked for" in shown(made).texts["figures"]


def test_keys_are_shown_whole(made: HandMade) -> None:
    page = shown(full(made))

    assert made.bundle.meta("broker_root") is not None
    assert str(made.bundle.meta("broker_root")) in page.texts["ledgers"]
    assert key("broker").hex() not in page.text


def test_a_report_can_be_read_while_the_bundle_is_open_elsewhere(made: HandMade) -> None:
    full(made)

    with Bundle.open(made.bundle.path) as other:
        write_report(other, made.bundle.path.with_name("report.html"))

    assert "No fault was found." in made.bundle.path.with_name("report.html").read_text("utf-8")
