"""Charts: whole drawings whose text is escaped, whose numbers stand in words too."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, strategies as some

from permslip.auditing.charts import Bar, bars, columns

SVG = "{http://www.w3.org/2000/svg}"
BOTH = ("allowed", "refused")


@pytest.mark.parametrize("draw", [bars, columns])
@given(
    rows=some.lists(
        some.builds(Bar, some.text(), some.tuples(some.integers(0, 2**40), some.integers(0, 2**40))), max_size=12
    ),
    title=some.text(),
)
def test_any_names_and_numbers_make_a_well_formed_drawing_within_its_frame(draw, rows, title) -> None:  # type: ignore[no-untyped-def]  # hypothesis and parametrize together
    root = ET.fromstring(draw(rows, series=BOTH, title=title, name="a"))

    _, _, width, height = (float(each) for each in root.attrib["viewBox"].split())
    for box in root.iter(f"{SVG}rect"):
        if "x" in box.attrib:
            assert 0 <= float(box.attrib["x"]) <= width
            assert float(box.attrib["y"]) >= 0
            assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width + 1
            assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height + 1


@pytest.mark.parametrize("draw", [bars, columns])
def test_the_drawing_says_its_numbers_in_words(draw) -> None:  # type: ignore[no-untyped-def]  # one of two functions
    root = ET.fromstring(draw([Bar("Monday", (1_200, 3))], series=BOTH, title="Accesses", name="a"))

    assert root.findtext(f"{SVG}title") == "Accesses"
    assert root.findtext(f"{SVG}desc") == "Monday: 1,200 allowed, 3 refused."


@pytest.mark.parametrize("draw", [bars, columns])
def test_nothing_to_show_is_said(draw) -> None:  # type: ignore[no-untyped-def]  # one of two functions
    assert "Nothing to show." in draw([], series=BOTH, title="Accesses", name="a")


def test_series_differ_by_more_than_colour() -> None:
    drawing = bars([Bar("Monday", (1, 1))], series=BOTH, title="Accesses", name="a")

    assert 'fill="url(#a-hatch)"' in drawing


def test_a_long_name_is_cut_and_told_whole() -> None:
    name = "Brightpath " * 10

    drawing = bars([Bar(name, (1,))], series=("accesses",), title="Accesses", name="a")

    root = ET.fromstring(drawing)
    text = next(each for each in root.iter(f"{SVG}text") if "Brightpath" in "".join(each.itertext()))
    assert text.findtext(f"{SVG}title") == name
    assert len("".join(text.itertext())) <= len(name) + 46
