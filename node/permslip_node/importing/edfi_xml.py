"""Reads Ed-Fi Core 1.0 interchange files row by row, safely, in the memory of one row.

A *row* is a child element of the root (``<Grade>``, ``<Student>`` …). Its texts are flattened to *paths*::

    <Grade>                                            NumericGradeEarned → "60"
      <NumericGradeEarned>60</NumericGradeEarned>      Section/LocalCourseCode → "ELA-03"
      <SectionReference><SectionIdentity>              Section@ref → "SCTN_1"    (of <SectionReference ref=…/>)
        <LocalCourseCode>ELA-03</LocalCourseCode> …

Rules of the paths:

- ``…Reference`` and ``…Identity`` wrap what they refer to: the ending is dropped, and a step that repeats the step
  before it, or says ``EducationalOrg``, disappears. The dialects of Ed-Fi 1.0 differ in little else.
- An attribute is ``path@name``; a path that occurs again in a row is ``path#2``, ``path#3`` …
- A path may be declared a *group*: then each element becomes a dictionary of its own, with paths below the element.
- Blanks around a text are layout and are dropped; an empty element is an absent one.

Rules of safety (each is an :class:`permslip.errors.ImportFileError` with file and line):

- No document type, hence no entity of any kind beyond XML's own five. UTF-8 only, declared or not.
- At most :data:`MAX_DEPTH` levels, :data:`MAX_TEXT` characters in an element, :data:`MAX_REPEATS` repetitions of an
  element in a row, :data:`MAX_NAMES` different paths in a file, :data:`MAX_TOKEN` bytes in a tag.
- The root is an ``Interchange…`` in the namespace :data:`NAMESPACE`.
- A row that comes to more than :data:`MAX_ROW` characters, with its paths and a little for each value, is no error of
  the file: it is handed out empty and says so (``is_too_large``), for one such row must cost one row.

expat does the parsing: it is as fast as ``ElementTree.iterparse`` with an empty loop, and knows every line number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final
from xml.parsers import expat  # nosec: entities and document types are refused below

from permslip.errors import ImportFileError
from permslip_node.importing.sources import SourceFile

__all__ = [
    "MAX_DEPTH",
    "MAX_NAMES",
    "MAX_REPEATS",
    "MAX_ROW",
    "MAX_TEXT",
    "MAX_TOKEN",
    "NAMESPACE",
    "Row",
    "interchange_of",
    "join_path",
    "read_rows",
]

NAMESPACE: Final = "http://ed-fi.org/0100"
MAX_DEPTH: Final = 64
MAX_TEXT: Final = 1024 * 1024
MAX_TOKEN: Final = 2 * 1024 * 1024
MAX_REPEATS: Final = 10_000
MAX_NAMES: Final = 50_000
MAX_ROW: Final = 4 * 1024 * 1024
# What a value, or an element of a group, takes in memory beside its characters.
_EACH: Final = 64

_ENCODINGS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_OTHER_ENCODINGS: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00", b"<\x00")
_NO_GROUPS: Final[frozenset[str]] = frozenset()


class Row:
    """One child element of the root.

    Attributes:
        entity: the element's name.
        line: where it begins.
        xml_id: its ``id`` attribute, or empty.
        values: path → text.
        groups: path of a declared group → its elements in order, each a dictionary of the paths below it.
        refs: the paths outside of groups that end in ``@ref``.
        is_too_large: nothing of it was kept.
    """

    __slots__ = ("entity", "groups", "is_too_large", "line", "refs", "values", "xml_id")

    def __init__(self, entity: str, line: int, xml_id: str) -> None:
        self.entity = entity
        self.line = line
        self.xml_id = xml_id
        self.values: dict[str, str] = {}
        self.groups: dict[str, list[dict[str, str]]] = {}
        self.refs: list[str] = []
        self.is_too_large = False

    def drop(self) -> None:
        """Keep nothing of it: it is too large."""
        self.is_too_large = True
        self.values.clear()
        self.groups.clear()
        self.refs.clear()


class _Node(dict[str, "_Node"]):
    """A place in the tree of element names of a file; its children come into being when they are first met."""

    __slots__ = ("depth", "full", "group", "groups", "path", "refuse")

    def __init__(self, path: str, full: str, depth: int, groups: frozenset[str], refuse: _Refuse) -> None:
        self.path = path  # relative to the row, or to the group the node is in
        self.full = full  # relative to the row
        self.depth = depth
        self.groups = groups
        self.group = full if full in groups else ""
        self.refuse = refuse

    def __missing__(self, tag: str) -> _Node:
        local = tag.rpartition(":")[2]
        full = join_path(self.full, local)
        is_wrapper = full == self.full
        path = self.path if is_wrapper else "" if full in self.groups else join_path(self.path, local)
        node = self[tag] = _Node(path, full, self.depth + 1, self.groups, self.refuse)
        if is_wrapper:
            node.group = ""
        self.refuse.count_node(node.depth)
        return node


class _Refuse:
    """Raises errors that name the file and the parser's line."""

    def __init__(self, source: SourceFile, parser: expat.XMLParserType) -> None:
        self._source = source
        self._parser = parser
        self._nodes = 0

    def __call__(self, message: str, remedy: str = "") -> ImportFileError:
        line = self._parser.CurrentLineNumber
        return ImportFileError(message, file=self._source.label, line=line, remedy=remedy)

    def count_node(self, depth: int) -> None:
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise self(f"elements are nested more than {MAX_DEPTH} deep.")
        if self._nodes > MAX_NAMES:
            raise self(f"more than {MAX_NAMES} different elements.")

    def doctype(self, *_: object) -> None:
        raise self("a document type is refused.", "Export without DOCTYPE: Ed-Fi files have none.")

    def declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise self(f"expected UTF-8, the file declares {encoding!r}.", "Save it as UTF-8.")

    def root(self, tag: str, attributes: Mapping[str, str]) -> None:
        if not tag.rpartition(":")[2].startswith("Interchange"):
            raise self(f"expected an Ed-Fi interchange, the root is <{tag[:80]}>.")
        prefix = tag.rpartition(":")[0]
        namespace = attributes.get(f"xmlns:{prefix}" if prefix else "xmlns")
        if namespace != NAMESPACE:
            raise self(
                f"expected Ed-Fi Core 1.0 (namespace {NAMESPACE}), the file's namespace is {namespace!r}.",
                "Export as Ed-Fi Core 1.0.",
            )


def interchange_of(source: SourceFile) -> str:
    """The name of a file's root element without ``Interchange``, e.g. ``"StudentGrade"``.

    Raises:
        ImportFileError: the file is no Ed-Fi Core 1.0 interchange, or unsafe before its root.
    """
    found: list[str] = []
    parser, refuse = _parser(source)

    def root(tag: str, attributes: dict[str, str]) -> None:
        if not found:
            refuse.root(tag, attributes)
            found.append(tag.rpartition(":")[2].removeprefix("Interchange"))
            parser.StartElementHandler = None

    parser.StartElementHandler = root
    for _ in _fed(source, parser, refuse):
        if found:
            break
    return found[0]


def join_path(path: str, step: str) -> str:
    """Append a step to a path by the rules of the module's docstring.

    >>> join_path("Section", "EducationalOrgReference"), join_path("Student", "StudentIdentity")
    ('Section', 'Student')
    """
    for ending in ("Reference", "Identity"):
        if step.endswith(ending) and step != ending:
            step = step[: -len(ending)]
            if step == "EducationalOrg":
                return path
    if path == step or path.endswith("/" + step):
        return path
    return f"{path}/{step}" if path else step


def read_rows(
    source: SourceFile,
    groups: Mapping[str, frozenset[str]],
    on_bytes: Callable[[int], None] | None = None,
) -> Iterator[list[Row]]:
    """Read a file's rows in order, as many at a time as a chunk of the file completes.

    Args:
        source: the file.
        groups: entity → paths that are groups.
        on_bytes: called with the number of bytes parsed so far.

    Raises:
        ImportFileError: not well formed, unsafe, or not readable. Rows before the fault have been handed out.
    """
    parser, refuse = _parser(source)
    rows: list[Row] = []
    entities: dict[str, _Node] = {}
    stack: list[_Node] = []
    push, pop = stack.append, stack.pop
    row = Row("", 0, "")
    node = _Node("", "", 0, _NO_GROUPS, refuse)
    values: dict[str, str] = row.values
    # How often each path that was repeated has occurred: in the row itself, and in ``values``.
    in_row: dict[str, int] = {}
    repeats = in_row
    room = MAX_ROW
    leaf = False
    text = ""

    def start_root(tag: str, attributes: dict[str, str]) -> None:
        refuse.root(tag, attributes)
        parser.StartElementHandler = start_row
        parser.EndElementHandler = None

    def start_row(tag: str, attributes: dict[str, str]) -> None:
        nonlocal row, node, values, leaf, in_row, repeats, room
        found = entities.get(tag)
        if found is None:
            local = tag.rpartition(":")[2]
            found = entities[tag] = _Node("", "", 2, groups.get(local, _NO_GROUPS), refuse)
            refuse.count_node(2)
        node = found
        row = Row(tag.rpartition(":")[2], parser.CurrentLineNumber, attributes.get("id", ""))
        values = row.values
        in_row = repeats = {}
        room = MAX_ROW
        leaf = False
        parser.StartElementHandler = start_field
        parser.EndElementHandler = end_field

    def start_field(tag: str, attributes: dict[str, str]) -> None:
        nonlocal node, values, leaf, text, repeats, room
        push(node)
        node = node[tag]
        leaf = True
        text = ""
        if node.group:
            members = row.groups.setdefault(node.group, [])
            if len(members) >= MAX_REPEATS:
                raise refuse(f"more than {MAX_REPEATS} {node.group} in one {row.entity}.")
            values = {}
            repeats = {}
            room -= _EACH
            if room >= 0:
                members.append(values)
            else:
                row.drop()
        if attributes:
            for name, content in attributes.items():
                if ":" not in name and name != "xmlns" and (content := content.strip()):
                    add(f"{node.path}@{name}", content)
                    if name == "ref" and values is row.values:
                        row.refs.append(f"{node.path}@ref")

    def add(path: str, content: str) -> None:
        nonlocal room
        room -= len(path) + len(content) + _EACH
        if room < 0:
            row.drop()
            values.clear()
        elif path not in values:
            values[path] = content
        else:
            number = repeats[path] = repeats.get(path, 1) + 1
            if number > MAX_REPEATS:
                raise refuse(f"more than {MAX_REPEATS} {path} in one {row.entity}.")
            values[f"{path}#{number}"] = content

    def end_field(_tag: str) -> None:
        nonlocal node, values, leaf, repeats, room
        if leaf:
            leaf = False
            if content := text.strip():
                path, size = node.path, len(node.path) + len(content) + _EACH
                if size <= room and path not in values:
                    # Almost always: without a call.
                    room -= size
                    values[path] = content
                else:
                    add(path, content)
        if stack:
            if node.group:
                values, repeats = row.values, in_row
            node = pop()
        else:
            rows.append(row)
            parser.StartElementHandler = start_row
            parser.EndElementHandler = None

    def characters(more: str) -> None:
        nonlocal text
        if text:
            text += more
            if len(text) > MAX_TEXT:
                raise refuse(f"more than {MAX_TEXT} characters in one element.")
        else:
            text = more

    parser.StartElementHandler = start_root
    parser.CharacterDataHandler = characters
    parsed = 0
    for size in _fed(source, parser, refuse):
        parsed += size
        if rows:
            done, rows = rows, []
            yield done
        if on_bytes is not None:
            on_bytes(parsed)


def _parser(source: SourceFile) -> tuple[expat.XMLParserType, _Refuse]:
    parser = expat.ParserCreate("utf-8")
    refuse = _Refuse(source, parser)
    parser.buffer_text = True
    parser.buffer_size = 64 * 1024
    parser.XmlDeclHandler = refuse.declaration
    parser.StartDoctypeDeclHandler = refuse.doctype
    parser.EntityDeclHandler = refuse.doctype
    return parser, refuse


def _fed(source: SourceFile, parser: expat.XMLParserType, refuse: _Refuse) -> Iterable[int]:
    """Feed the whole file to the parser; yields the size of each chunk once it is parsed."""
    fed = 0
    try:
        for chunk in source.chunks():
            if not fed and chunk.startswith(_OTHER_ENCODINGS):
                raise refuse("expected UTF-8, the file is UTF-16 or UTF-32.", "Save it as UTF-8.")
            parser.Parse(chunk)
            fed += len(chunk)
            if fed - parser.CurrentByteIndex > MAX_TOKEN:
                raise refuse(f"a tag or comment longer than {MAX_TOKEN} bytes.")
            yield len(chunk)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise ImportFileError(
            f"not well-formed XML: {expat.ErrorString(error.code)}.",
            file=source.label,
            line=error.lineno,
            remedy="Export the file again; what stands before this line has been read.",
        ) from error
    yield 0
