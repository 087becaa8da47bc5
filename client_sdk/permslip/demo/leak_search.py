"""Finds what must not be in the centre: many texts at once, in every form in which they may lie about.

A *needle* is a text that only a school, a family or a provider may hold: a name, an id, a purpose in a parent's words.
It is sought in any block of bytes (a database page, a log, a process's memory, recorded traffic) as

- UTF-8, UTF-16 of both byte orders, and what Python itself keeps in memory (Latin-1, UTF-32);
- hexadecimal digits of either case, and JSON's escapes;
- base64, ordinary and URL-safe, wherever among other bytes it was encoded (all three alignments);
- its SHA-256, raw, in hexadecimal and in base64: a digest of a name is as good as the name.

Rules:

- Pure: bytes in, hits out. Where the bytes come from is :mod:`permslip.demo.leak_places`.
- A needle has at least 6 bytes. One below 8 is not sought as plain UTF-8: ``604822`` stands in some timestamp anyway.
  All its other forms are long enough that a hit by chance is not to be expected.
- Nothing is sampled. Every pattern that lies whole within a block is found, at every offset.

How: of each pattern some words of 8 bytes (4 bytes, for those below 15) are remembered so that, wherever the pattern
begins, one of them lies on a word's boundary of the block. A block is read as words and intersected with the
remembered ones at the speed of a set; what meets is compared byte by byte.

Example::

    >>> search = LeakSearch(["Ada Lovelace"])
    >>> [(hit.form, hit.offset) for hit in search.hits(b"..." + "Ada Lovelace".encode().hex().encode(), "log")]
    [('hexadecimal', 3)]
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal

from permslip.errors import MalformedError

__all__ = ["MIN_NEEDLE_BYTES", "Hit", "LeakSearch", "forms_of"]

MIN_NEEDLE_BYTES: Final = 6
_PLAIN_FROM: Final = 8

# Width of a word → memoryview's name for it. A pattern of 2 · width − 1 bytes holds a whole word at every alignment.
_WORDS: Final[dict[int, Literal["Q", "I"]]] = {8: "Q", 4: "I"}
_LONG: Final = 15
_PART: Final = 1 << 12


@dataclass(frozen=True, slots=True)
class Hit:
    """A needle that was found.

    Attributes:
        needle: the text.
        form: in which form it was found, e.g. ``base64``.
        place: where, as the caller named it.
        offset: of its first byte there.
    """

    needle: str
    form: str
    place: str
    offset: int


@dataclass(frozen=True, slots=True)
class _Pattern:
    raw: bytes
    needle: str
    form: str


class LeakSearch:
    """A search for many needles at once; made once, used on many blocks.

    Args:
        needles: texts of at least 6 bytes of UTF-8 each; repetitions are no matter.

    Raises:
        MalformedError: one is shorter.
    """

    def __init__(self, needles: Iterable[str]) -> None:
        self.needles = frozenset(needles)
        # Width → word → patterns that contain it, and where.
        self._words: dict[int, dict[int, list[tuple[_Pattern, int]]]] = {width: defaultdict(list) for width in _WORDS}
        self._longest = 1
        known: set[bytes] = set()
        for needle in sorted(self.needles):
            if len(needle.encode()) < MIN_NEEDLE_BYTES:
                raise MalformedError(
                    f"expected at least {MIN_NEEDLE_BYTES} bytes, got {needle!r}.",
                    field="needle",
                    remedy="Join it with something that makes it unmistakable.",
                )
            for form, raw in forms_of(needle):
                if raw not in known:
                    known.add(raw)
                    self._remember(_Pattern(raw, needle, form))
        self._known = {width: frozenset(words) for width, words in self._words.items()}

    @property
    def overlap(self) -> int:
        """How many bytes of a block must be repeated at the start of the next, for nothing to be lost between them."""
        return self._longest - 1

    def hits(self, block: bytes, place: str, start: int = 0) -> Iterator[Hit]:
        """Every pattern that lies whole within a block.

        Args:
            block: the bytes.
            place: what to call it.
            start: of the block, within the place.
        """
        for width, name in _WORDS.items():
            known = self._known[width]
            view = memoryview(block)[: len(block) - len(block) % width].cast(name)
            # Part by part, because each word that is met is then looked for in the part.
            for first in range(0, len(view), _PART // width):
                for word in known.intersection(view[first : first + _PART // width]):
                    yield from self._compare(block, width, word, first * width, place, start)

    def _compare(self, block: bytes, width: int, word: int, part: int, place: str, start: int) -> Iterator[Hit]:
        raw, end = word.to_bytes(width, sys.byteorder), part + _PART
        at = block.find(raw, part, end)
        while at >= 0:
            if at % width == 0:
                for pattern, offset in self._words[width][word]:
                    if at >= offset and block.startswith(pattern.raw, at - offset):
                        yield Hit(pattern.needle, pattern.form, place, start + at - offset)
            at = block.find(raw, at + 1, end)

    def _remember(self, pattern: _Pattern) -> None:
        raw = pattern.raw
        self._longest = max(self._longest, len(raw))
        width = 8 if len(raw) >= _LONG else 4
        words = self._words[width]
        for first in range(width):
            # Of the words that may lie on a boundary together the last one: family names are rarer than first names.
            offset = first + (len(raw) - width - first) // width * width
            words[int.from_bytes(raw[offset : offset + width], sys.byteorder)].append((pattern, offset))


def forms_of(needle: str) -> Iterator[tuple[str, bytes]]:
    """The forms in which a text is sought, each with its name; some may be the same bytes."""
    raw = needle.encode()
    digest = sha256(raw).digest()
    if len(raw) >= _PLAIN_FROM:
        yield "UTF-8", raw
    yield "UTF-16-LE", needle.encode("utf-16-le")
    yield "UTF-16-BE", needle.encode("utf-16-be")
    if not needle.isascii():
        yield "UTF-32", needle.encode("utf-32-le" if sys.byteorder == "little" else "utf-32-be")
        yield "JSON", json.dumps(needle)[1:-1].encode()
        if max(needle) <= "\xff":
            yield "Latin-1", needle.encode("latin-1")
    for form, source in (("hexadecimal", raw), ("SHA-256 in hexadecimal", digest)):
        yield form, source.hex().encode()
        yield form, source.hex().upper().encode()
    for form, source in (("base64", raw), ("SHA-256 in base64", digest)):
        for before in range(3):
            yield form, _base64(source, before)
            yield form, _base64(source, before).translate(_URL_SAFE)
    yield "SHA-256", digest


_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def _base64(raw: bytes, before: int) -> bytes:
    """The digits that the bytes alone determine, when so many others stand before them in the encoded text."""
    digits = b64encode(bytes(before) + raw + bytes(2))
    return digits[-(-8 * before // 6) : 8 * (before + len(raw)) // 6]
