"""Where the demo's records come from: real files that were given, or a district that is generated.

Either way there are four nodes, three schools and a learning platform, and all of them read files with the importers
that a school would use.

- ``--data DIR``: the Grand Bend set: ``edfi-1.0-full/EdFiSampleData.zip`` and ``lms-canvas/`` in ``DIR``. One archive
  for all three schools: each takes the learners who are enrolled there.
- without: a district that does not exist, the same for a seed, in the same formats.

Example::

    sites, description = given_sites(Path("../shared/data/grandbend"))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from permslip.demo.children import Children
from permslip.errors import ConfigurationError

__all__ = ["Site", "Sources", "generated_sources", "given_sources"]

_PLATFORM: Final = "platform"


@dataclass(frozen=True, slots=True)
class Site:
    """One node to be.

    Attributes:
        key: short, for folders and logs.
        name: as parents see it.
        imports: the arguments of each ``permslip node import`` that loads it, in order.
    """

    key: str
    name: str
    imports: tuple[tuple[str, ...], ...]

    @property
    def is_platform(self) -> bool:
        """Whether it is the learning platform, not a school."""
        return self.key == _PLATFORM


@dataclass(frozen=True, slots=True)
class Sources:
    """What is imported, and where.

    Attributes:
        sites: the nodes to be; the platform last.
        description: for the narration.
        files: every file that may be read: their names must not be found at the broker.
    """

    sites: tuple[Site, ...]
    description: str
    files: tuple[Path, ...]


def given_sources(data: Path) -> Sources:
    """The Grand Bend set.

    Raises:
        ConfigurationError: it is not there.
    """
    archive, extract = data / "edfi-1.0-full" / "EdFiSampleData.zip", data / "lms-canvas"
    for path in (archive, extract):
        if not path.exists():
            raise ConfigurationError(
                f"expected {path.relative_to(data)} there, found none in {data}.",
                key="--data",
                remedy="Name a folder with the Grand Bend set, or leave --data out: then a district is generated.",
            )
    schools = (
        ("high", "Grand Bend High School", "255901001"),
        ("middle", "Grand Bend Middle School", "255901044"),
        ("elementary", "Grand Bend Elementary School", "255901107"),
    )
    return _sources(
        schools, edfi=archive, lms=extract, platform="Grand Bend Learning Platform", description=f"real files: {data}"
    )


def generated_sources(children: Children, folder: Path, *, learners: int, seed: int) -> Sources:
    """A district that is generated below ``folder``.

    Raises:
        UnavailableError: the generator failed; it comes with ``permslip[node]``.
    """
    made = children.run_module(
        "permslip_node.sample_district", str(folder), "--learners", str(learners), "--seed", str(seed)
    ).document()
    keys = ("high", "middle", "elementary")
    schools = [(key, school["name"], school["identifier"]) for key, school in zip(keys, made["schools"], strict=True)]
    return _sources(
        schools,
        edfi=Path(made["edfi"]),
        lms=Path(made["lms"]),
        platform="Alder Creek Learning Platform",
        description=f"a district that does not exist: {learners} invented learners (seed {seed})",
    )


def _sources(
    schools: tuple[tuple[str, str, str], ...] | list[tuple[str, str, str]],
    *,
    edfi: Path,
    lms: Path,
    platform: str,
    description: str,
) -> Sources:
    sites = [Site(key, name, ((str(edfi), "--school", number),)) for key, name, number in schools]
    # The platform knows no guardians: the schools tell it whose children its learners are.
    loads = ((str(lms), "--format", "lms"), (str(edfi), "--format", "families"))
    sites.append(Site(_PLATFORM, platform, loads))
    files = [edfi] if edfi.is_file() else sorted(edfi.glob("*.xml"))
    return Sources(tuple(sites), description, (*files, *sorted(lms.rglob("*.csv"))))
