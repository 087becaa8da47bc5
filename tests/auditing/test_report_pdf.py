"""The report as a PDF: it opens, says the same, is tagged; without the extra the error says what to install."""

from __future__ import annotations

import importlib.util
import io
import os
from pathlib import Path
from typing import Any

import pytest

from permslip.auditing.codes import Code
from permslip.auditing.report_pdf import Paper, pdf_document
from permslip.auditing.reporting import make_report, write_report
from permslip.errors import ConfigurationError
from permslip.quantities import Millis
from tests.auditing.report_bundles import START, HandMade, some_id

EVIL = '#panic("no") $x$ <label> @ref *bold* [x] \\ " #image("/etc/passwd")'


@pytest.fixture
def made(tmp_path: Path) -> HandMade:
    return HandMade(tmp_path / "audit.db")


@pytest.fixture
def reader() -> Any:
    missing = [each for each in ("typst", "pypdf") if importlib.util.find_spec(each) is None]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"not installed: {', '.join(missing)}; pip install 'permslip[report]' pypdf")
    import pypdf

    return pypdf.PdfReader


def opened(made: HandMade, reader: Any, paper: Paper = "us-letter") -> Any:
    report = make_report(made.bundle, now=Millis(START))
    return reader(io.BytesIO(pdf_document(report, now=Millis(START), paper=paper)))


def text_of(document: Any) -> str:
    return " ".join("\n".join(page.extract_text() for page in document.pages).split())


def test_a_pdf_opens_and_says_what_the_page_says(made: HandMade, reader: Any) -> None:
    made.ledgers().found("verify", [(Code.LEAF_HASH, "fault")])
    made.access(1, requester=made.provider("Reading Tutors"))

    text = text_of(opened(made, reader))

    assert "1 fault was found." in text
    assert Code.LEAF_HASH.meaning in text
    assert "Reading Tutors" in text


def test_it_is_tagged_titled_and_says_its_language(made: HandMade, reader: Any) -> None:
    document = opened(made.ledgers().checked(), reader)
    root = document.trailer["/Root"]

    assert document.metadata["/Title"] == "Audit report: fed.example"
    assert root["/Lang"] == "en"
    assert root["/MarkInfo"]["/Marked"]


def test_an_empty_bundle_makes_a_pdf_too(made: HandMade, reader: Any) -> None:
    assert "Nothing was checked." in text_of(opened(made, reader))


def test_names_and_messages_never_become_markup(made: HandMade, reader: Any) -> None:
    made.ledgers(school=EVIL).found("verify", [(Code.LEAF_HASH, "fault")], EVIL)
    made.access(1, requester=made.provider(EVIL))

    text = text_of(opened(made, reader))

    assert '#panic("no") $x$ <label> @ref *bold* [x]' in text
    assert '#image("/etc/passwd")' in text


def test_long_ids_can_be_copied_whole(made: HandMade, reader: Any) -> None:
    made.ledgers().found("verify", [(Code.LEAF_HASH, "fault")], f"expected {some_id(1).hex()}.")

    text = text_of(opened(made, reader))

    assert some_id(1).hex() in text.replace(" ", "")
    assert "\u200b" not in text


@pytest.mark.parametrize(("paper", "width"), [("us-letter", 612), ("a4", 595)])
def test_paper_can_be_chosen(made: HandMade, reader: Any, paper: Paper, width: int) -> None:
    assert int(opened(made, reader, paper).pages[0].mediabox.width) == width


def test_the_same_bundle_makes_the_same_bytes(made: HandMade, reader: Any) -> None:
    report = make_report(made.ledgers().bundle, now=Millis(START))

    assert pdf_document(report, now=Millis(START)) == pdf_document(report, now=Millis(START))


def test_both_files_are_written_for_the_owner_alone(made: HandMade, reader: Any, tmp_path: Path) -> None:
    write_report(made.bundle, tmp_path / "r.html", pdf=tmp_path / "r.pdf")

    assert (tmp_path / "r.pdf").read_bytes().startswith(b"%PDF-")
    assert (tmp_path / "r.pdf").stat().st_mode & 0o777 == 0o600


def test_without_the_extra_the_error_says_what_to_install(
    made: HandMade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ConfigurationError, match=r"pip install 'permslip\[report\]'"):
        write_report(made.bundle, tmp_path / "r.html", pdf=tmp_path / "r.pdf")

    assert not (tmp_path / "r.html").exists()
    write_report(made.bundle, tmp_path / "r.html")
