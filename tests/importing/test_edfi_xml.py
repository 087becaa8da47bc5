"""The streaming reader: what a row looks like, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from permslip.errors import ImportFileError
from permslip_node.importing import MemorySink, import_edfi
from permslip_node.importing.edfi_xml import (
    MAX_DEPTH,
    MAX_NAMES,
    MAX_REPEATS,
    MAX_ROW,
    MAX_TEXT,
    MAX_TOKEN,
    Row,
    read_rows,
)
from permslip_node.importing.sources import open_sources

OPEN = '<InterchangeStudentGrade xmlns="http://ed-fi.org/0100">'
CLOSE = "</InterchangeStudentGrade>"


def _write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "StudentGrade.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _rows(path: Path, groups: dict[str, frozenset[str]] | None = None) -> list[Row]:
    with open_sources([path]) as sources:
        [source] = sources.files
        return [row for rows in read_rows(source, groups or {}) for row in rows]


def _refused(path: Path) -> ImportFileError:
    """The error, both of the reader and of a whole import."""
    with pytest.raises(ImportFileError) as whole:
        import_edfi([path], MemorySink())
    with pytest.raises(ImportFileError) as reader:
        _rows(path)
    assert whole.value.file == reader.value.file == str(path)
    return whole.value


def test_wrappers_disappear_from_paths_and_references_keep_their_id(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        f"""{OPEN}
  <Grade id="G1">
    <SectionReference><SectionIdentity>
      <EducationalOrgReference><EducationalOrgIdentity><StateOrganizationId>7</StateOrganizationId>
      </EducationalOrgIdentity></EducationalOrgReference></SectionIdentity></SectionReference>
    <GradingPeriodReference ref="P1"/>
    <NumericGradeEarned> 60&amp;<![CDATA[<1>]]> </NumericGradeEarned><Empty/>
  </Grade>
{CLOSE}""",
    )
    [row] = _rows(path)
    assert (row.entity, row.line, row.xml_id, row.refs) == ("Grade", 2, "G1", ["GradingPeriod@ref"])
    assert row.values == {"Section/StateOrganizationId": "7", "GradingPeriod@ref": "P1", "NumericGradeEarned": "60&<1>"}


def test_a_prefix_for_the_namespace_makes_no_difference(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        '<e:InterchangeStudentGrade xmlns:e="http://ed-fi.org/0100"><e:Grade><e:GradeType>Final</e:GradeType>'
        "</e:Grade></e:InterchangeStudentGrade>",
    )
    assert [(row.entity, row.values) for row in _rows(path)] == [("Grade", {"GradeType": "Final"})]


def test_repeated_paths_are_numbered_and_groups_become_dictionaries(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        f"""{OPEN}<Test><Note>a</Note><Note>b</Note><Note>c</Note>
        <Score By="x"><Result>1</Result></Score><Score By="y"><Result>2</Result></Score></Test>{CLOSE}""",
    )
    [row] = _rows(path, {"Test": frozenset({"Score"})})
    assert row.values == {"Note": "a", "Note#2": "b", "Note#3": "c"}
    assert row.groups == {"Score": [{"@By": "x", "Result": "1"}, {"@By": "y", "Result": "2"}]}


def test_rows_are_whole_wherever_a_chunk_of_the_file_ends(tmp_path: Path) -> None:
    rows = "".join(
        f"<Grade><NumericGradeEarned>{'é' * 50}{number}</NumericGradeEarned></Grade>" for number in range(9000)
    )
    found = _rows(_write(tmp_path, f"{OPEN}{rows}{CLOSE}"))
    assert [row.values["NumericGradeEarned"] for row in found] == [f"{'é' * 50}{number}" for number in range(9000)]


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert len(_rows(_write(tmp_path, b"\xef\xbb\xbf" + f"{OPEN}<Grade/>{CLOSE}".encode()))) == 1


BILLION_LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>
"""
EXTERNAL = '<!DOCTYPE x [<!ENTITY secret SYSTEM "file:///etc/passwd">]>\n'


@pytest.mark.parametrize(
    "prolog",
    [BILLION_LAUGHS, EXTERNAL, "<!DOCTYPE x>", '<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd">'],
    ids=["entity expansion", "external entity", "empty document type", "external document type"],
)
def test_every_document_type_is_refused_with_its_line(tmp_path: Path, prolog: str) -> None:
    error = _refused(_write(tmp_path, f"{prolog}{OPEN}<Grade><A>&c;&secret;</A></Grade>{CLOSE}"))
    assert "document type is refused" in error.message
    assert error.line == prolog[: prolog.index("<!DOCTYPE")].count("\n") + 1


def test_an_entity_that_nobody_declared_is_refused(tmp_path: Path) -> None:
    assert "undefined entity" in _refused(_write(tmp_path, f"{OPEN}<Grade><A>&x;</A></Grade>{CLOSE}")).message


def test_absurd_depth_is_refused(tmp_path: Path) -> None:
    deep = "<A>" * (MAX_DEPTH + 1) + "</A>" * (MAX_DEPTH + 1)
    assert f"more than {MAX_DEPTH} deep" in _refused(_write(tmp_path, f"{OPEN}\n<Grade>{deep}</Grade>{CLOSE}")).message


def test_depth_up_to_the_limit_is_read(tmp_path: Path) -> None:
    levels = MAX_DEPTH - 2
    deep = "".join(f"<A{number}>" for number in range(levels)) + "x"
    deep += "".join(f"</A{number}>" for number in reversed(range(levels)))
    [row] = _rows(_write(tmp_path, f"{OPEN}<Grade>{deep}</Grade>{CLOSE}"))
    assert list(row.values.values()) == ["x"]


def test_absurd_text_is_refused_before_it_is_gathered(tmp_path: Path) -> None:
    error = _refused(_write(tmp_path, f"{OPEN}<Grade><A>{'x' * (MAX_TEXT + 70_000)}</A></Grade>{CLOSE}"))
    assert f"more than {MAX_TEXT} characters" in error.message


def test_an_absurdly_long_tag_is_refused(tmp_path: Path) -> None:
    error = _refused(_write(tmp_path, f'{OPEN}<Grade a="{"x" * (MAX_TOKEN + 300_000)}"/>{CLOSE}'))
    assert "a tag or comment longer than" in error.message


def test_absurdly_many_repetitions_are_refused(tmp_path: Path) -> None:
    many = "<PerformanceLevels><Description>x</Description></PerformanceLevels>" * (MAX_REPEATS + 1)
    error = _refused_by_reader(_write(tmp_path, f"{OPEN}<StudentAssessment>{many}</StudentAssessment>{CLOSE}"))
    assert f"more than {MAX_REPEATS} PerformanceLevels" in error.message


def _refused_by_reader(path: Path) -> ImportFileError:
    with pytest.raises(ImportFileError) as caught:
        _rows(path, {"StudentAssessment": frozenset({"PerformanceLevels"})})
    return caught.value


def test_repetitions_are_numbered_in_each_element_of_a_group_and_in_the_row_apart(tmp_path: Path) -> None:
    score = "<Score><Note>x</Note><Note>y</Note></Score>"
    path = _write(tmp_path, f"{OPEN}<Test><Note>a</Note>{score}<Note>b</Note>{score}<Note>c</Note></Test>{CLOSE}")
    [row] = _rows(path, {"Test": frozenset({"Score"})})
    assert row.values == {"Note": "a", "Note#2": "b", "Note#3": "c"}
    assert row.groups == {"Score": [{"Note": "x", "Note#2": "y"}] * 2}


def _large(kind: str) -> str:
    if kind == "long texts":
        return "".join(f"<Part{number}>{'x' * 1_000_000}</Part{number}>" for number in range(5))
    if kind == "many values":
        return "".join(f"<Part{part}>y</Part{part}>" * (MAX_REPEATS - 1) for part in range(8))
    return "".join(
        f"<Score><Part{number % 9_000}>{'x' * 500}</Part{number % 9_000}></Score>" for number in range(9_000)
    )


@pytest.mark.parametrize("kind", ["long texts", "many values", "elements of a group"])
def test_a_row_that_is_too_large_as_a_whole_is_dropped_and_the_others_are_read(tmp_path: Path, kind: str) -> None:
    rows = f"<Grade><A>1</A></Grade>\n<Grade>{_large(kind)}<B>2</B></Grade>\n<Grade><C>3</C></Grade>"
    path = _write(tmp_path, f"{OPEN}\n{rows}{CLOSE}")
    before, large, after = _rows(path, {"Grade": frozenset({"Score"})})
    assert (large.line, large.is_too_large, large.values, large.groups) == (3, True, {}, {})
    assert [(each.values, each.is_too_large) for each in (before, after)] == [({"A": "1"}, False), ({"C": "3"}, False)]


def test_a_row_that_is_too_large_is_rejected_with_file_line_and_reason(tmp_path: Path) -> None:
    path = _write(tmp_path, f"{OPEN}\n<Grade>{_large('long texts')}</Grade>{CLOSE}")
    rejects = tmp_path / "rejects.jsonl"
    report = import_edfi([path], MemorySink(), rejects=rejects)
    [reject] = map(json.loads, rejects.read_text().splitlines())
    assert report.rejected == 1
    assert (reject["file"], reject["line"], reject["entity"]) == (str(path), 2, "Grade")
    assert reject["reason"] == f"expected at most {MAX_ROW} characters in a row, with its paths."


def test_absurdly_many_different_elements_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"<E{number}/>" for number in range(MAX_NAMES + 1))
    assert "different elements" in _refused(_write(tmp_path, f"{OPEN}{rows}{CLOSE}")).message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"<?xml version='1.0' encoding='ISO-8859-1'?>{OPEN}<Grade/>{CLOSE}".encode("latin-1"), "expected UTF-8"),
        (f"<?xml version='1.0' encoding='UTF-16'?>{OPEN}<Grade/>{CLOSE}".encode("utf-16"), "expected UTF-8"),
        (f"{OPEN}<Grade/>{CLOSE}".encode("utf-16-be"), "expected UTF-8"),
        (f"{OPEN}<Grade><A>".encode() + b"\xe9</A></Grade>" + CLOSE.encode(), "invalid token"),
        (b"", "no element found"),
        (f"{OPEN}\n<Grade>\n<A>1</A>".encode(), "no element found"),
        (f"{OPEN}<Grade><A>1</B></Grade>{CLOSE}".encode(), "mismatched tag"),
        (f"{OPEN}<Grade/>{CLOSE}<More/>".encode(), "junk after document element"),
    ],
    ids=[
        "latin-1",
        "utf-16",
        "utf-16 without mark",
        "latin-1 undeclared",
        "empty",
        "truncated",
        "crossed",
        "two roots",
    ],
)
def test_what_is_no_well_formed_utf8_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in _refused(_write(tmp_path, content)).message


def test_a_truncated_file_names_the_line_where_it_ends(tmp_path: Path) -> None:
    assert _refused(_write(tmp_path, f"{OPEN}\n<Grade>\n<A>1</A>\n")).line == 4


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<html xmlns='http://www.w3.org/1999/xhtml'/>", "expected an Ed-Fi interchange"),
        ("<InterchangeStudent xmlns='http://ed-fi.org/5.2.0'/>", "expected Ed-Fi Core 1.0"),
        ("<InterchangeStudent/>", "expected Ed-Fi Core 1.0"),
    ],
    ids=["another format", "another version", "no namespace"],
)
def test_another_format_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    assert re.search(reason, _refused(_write(tmp_path, content)).message)


def test_an_unsafe_file_is_refused_before_anything_of_its_folder_is_stored(tmp_path: Path) -> None:
    (tmp_path / "A.xml").write_text(
        f"{OPEN}<StudentAcademicRecord><StudentReference><StudentIdentity><StudentUniqueStateId>1"
        f"</StudentUniqueStateId></StudentIdentity></StudentReference></StudentAcademicRecord>{CLOSE}"
    )
    (tmp_path / "Z.xml").write_text(f"{EXTERNAL}{OPEN}{CLOSE}")
    sink = MemorySink()
    with pytest.raises(ImportFileError):
        import_edfi([tmp_path], sink)
    assert sink.records == {}
