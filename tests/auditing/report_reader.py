"""Reads a report as a browser would, as far as a test asks: strictly nested tags, headings, tables, text."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

__all__ = ["ReportReader", "read"]

_VOID: Final = {"meta", "br", "hr", "img", "link", "input"}


@dataclass
class ReportReader(HTMLParser):
    """What was read.

    Attributes:
        tags: every tag with its attributes, in order.
        headings: level and text.
        texts: text by the id of the section that it stands in; that of the head under ``""``.
    """

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    headings: list[tuple[int, str]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []
        self._section = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs).get("id") or ""
        if tag in {"h1", "h2", "h3"}:
            self.headings.append((int(tag[1]), ""))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.texts[self._section] = self.texts.get(self._section, "") + data
        if self.headings and {"h1", "h2", "h3"} & set(self._open):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each tag of this name."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        """Everything that a person reads."""
        return " ".join(self.texts.values())


def read(html: str) -> ReportReader:
    """Read a whole document; fails where tags are not closed in order."""
    reader = ReportReader()
    reader.feed(html)
    reader.close()
    assert not reader._open
    return reader
