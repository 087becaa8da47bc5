"""What must not be found at the broker, and the search for it there.

Needles are taken from the demo's own data: names of learners and guardians, local ids and birth dates, what parents
wrote, and the names of the files that were read.

Rules:

- The broker is searched while it runs: its folder (configuration, keys, database with its write-ahead log), its log,
  and its memory.
- The same search is made before any school is connected. What is found *then* is text that the software itself holds
  (a name in a copyright line, a number in the README that comes with the package); it proves nothing and is left out,
  and how much was left out is said.

Example::

    search = CentralSearch(federation)
    search.add(source_needles(sources.files))
    search.learn_what_software_holds()
    ...
    hits = search.run()
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from permslip.demo.federation import Federation
from permslip.demo.leak_places import Looked, search_folder, search_memory
from permslip.demo.leak_search import MIN_NEEDLE_BYTES, Hit, LeakSearch
from permslip.errors import UnavailableError

__all__ = ["CentralSearch", "source_needles"]

# Elements of Ed-Fi's StudentParent interchange, columns of the platform's users, that identify a person.
_XML: Final = re.compile(
    rb"<(?:StudentUniqueStateId|ParentUniqueStateId|IdentificationCode|BirthDate)>\s*([^<]+?)\s*<", re.ASCII
)
_COLUMNS: Final = ("Name", "SISUserIdentifier", "LocalUserIdentifier")


class CentralSearch:
    """Searches one running broker.

    Args:
        federation: whose broker.
    """

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._needles: set[str] = set()
        self.left_out: frozenset[str] = frozenset()
        self.looked = Looked()

    def add(self, needles: Iterable[str]) -> None:
        """Texts that must not be found; what is too short to mean anything is not sought."""
        self._needles.update(each for each in needles if len(each.encode()) >= MIN_NEEDLE_BYTES)

    @property
    def count(self) -> int:
        """How many texts are sought."""
        return len(self._needles - self.left_out)

    def learn_what_software_holds(self) -> None:
        """Leave out what the broker holds before it met anybody."""
        self._federation.broker_status()  # it reads its package's own texts when it is asked for its version
        self.left_out = frozenset(hit.needle for hit in self._hits(LeakSearch(self._needles)))

    def run(self) -> list[Hit]:
        """Search everything that the broker has."""
        self.looked = Looked()
        return list(self._hits(LeakSearch(self._needles - self.left_out)))

    def _hits(self, search: LeakSearch) -> Iterator[Hit]:
        federation = self._federation
        if federation.broker is None or not federation.broker.is_running:
            raise UnavailableError("the broker does not run, so its memory cannot be searched.")
        yield from search_folder(search, federation.broker_folder, self.looked)
        yield from search.hits(federation.broker.log.read_bytes(), "the broker's log")
        yield from search_memory(search, federation.broker.pid, self.looked)


def source_needles(files: Iterable[Path]) -> Iterator[str]:
    """Ids, birth dates and names in source files, and the files' own names."""
    for path in files:
        yield path.name
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    yield member.rpartition("/")[2]
                    if "StudentParent" in member:
                        yield from _in_xml(archive.read(member))
        elif path.suffix == ".xml" and "StudentParent" in path.name:
            yield from _in_xml(path.read_bytes())
        elif path.suffix == ".csv" and path.parent.name == "users":
            yield from _in_csv(path.read_text(encoding="utf-8-sig"))


def _in_xml(content: bytes) -> Iterator[str]:
    for found in _XML.findall(content):
        text = found.decode(errors="replace")
        yield text
        # A short number is not sought as plain text; between quotes, as JSON would hold it, it is.
        yield f'"{text}"'


def _in_csv(content: str) -> Iterator[str]:
    for row in csv.DictReader(io.StringIO(content)):
        for column in _COLUMNS:
            if text := row.get(column, ""):
                yield text
                yield f'"{text}"'
