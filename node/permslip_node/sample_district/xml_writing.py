"""Writes Ed-Fi interchange files.

Example::

    >>> to_xml(element("Grade", element("GradeType", "Final"), id="G1"), 0)
    '<Grade id="G1">\\n  <GradeType>Final</GradeType>\\n</Grade>\\n'
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr  # nosec: writes only

__all__ = ["Element", "element", "identity", "to_xml", "write_interchange"]

_NAMESPACE = "http://ed-fi.org/0100"


@dataclass(frozen=True, slots=True)
class Element:
    """An element with either text or children."""

    name: str
    attributes: tuple[tuple[str, str], ...]
    text: str
    children: tuple[Element, ...]


def element(name: str, *content: str | Element | None, **attributes: str) -> Element:
    """An element; of a list of children, ``None`` stands for one that is absent."""
    text = "".join(part for part in content if isinstance(part, str))
    children = tuple(part for part in content if isinstance(part, Element))
    return Element(name, tuple(attributes.items()), text, children)


def identity(reference: str, of: str, *children: Element) -> Element:
    """A reference by natural key: ``<reference><of>…</of></reference>``."""
    return element(reference, element(of, *children))


def to_xml(node: Element, depth: int) -> str:
    """The element as text, indented."""
    indent = "  " * depth
    head = node.name + "".join(f" {name}={quoteattr(text)}" for name, text in node.attributes)
    if node.children:
        inner = "".join(to_xml(child, depth + 1) for child in node.children)
        return f"{indent}<{head}>\n{inner}{indent}</{node.name}>\n"
    if node.text:
        return f"{indent}<{head}>{escape(node.text)}</{node.name}>\n"
    return f"{indent}<{head}/>\n"


def write_interchange(folder: Path, name: str, rows: Iterable[Element], *, file: str = "") -> Path:
    """Write one interchange file.

    Args:
        folder: exists.
        name: of the interchange, e.g. ``StudentGrade``.
        rows: children of the root.
        file: base name without suffix, where it is not the interchange's.
    """
    path = folder / f"{file or name}.xml"
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(f'<?xml version="1.0" encoding="UTF-8"?>\n<Interchange{name} xmlns="{_NAMESPACE}">\n')
        stream.writelines(to_xml(row, 1) for row in rows)
        stream.write(f"</Interchange{name}>\n")
    return path
