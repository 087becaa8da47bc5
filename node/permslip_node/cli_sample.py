"""``permslip node sample-district``: data to try a node with, of a school district that does not exist."""

from __future__ import annotations

from pathlib import Path

import click

from permslip.cli.output import command_errors, emit, json_option
from permslip.errors import ConfigurationError

__all__ = ["sample_district"]


@click.command("sample-district")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--learners", type=click.IntRange(1, 100_000), default=36, show_default=True, help="How many.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same district.")
@json_option
@command_errors
def sample_district(folder: Path, learners: int, seed: int, as_json: bool) -> None:
    """Write the files of an invented district below FOLDER: Ed-Fi XML in edfi/, a platform's CSV extract in lms/.

    Three schools, and a learning platform that some of their learners use. Nobody in it exists.

    Example: permslip node sample-district district --learners 36 --seed 1

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    from permslip_node.sample_district import generate_district

    try:
        made = generate_district(folder, learners=learners, seed=seed)
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename} cannot be written: {error.strerror}.", key="FOLDER", remedy="Name a folder of yours."
        ) from error
    document = {
        "edfi": str(made.edfi),
        "lms": str(made.lms),
        "schools": [{"identifier": each.identifier, "name": each.name} for each in made.schools],
        "learners": made.learners,
        "lms_learners": made.lms_learners,
        "guardian_links": made.guardian_links,
    }
    lines = [f"{made.learners:,} learners with {made.guardian_links:,} guardian links"]
    lines += [f"school {each.identifier}  {each.name}" for each in made.schools]
    lines += [f"Ed-Fi XML     {made.edfi}", f"LMS extract   {made.lms}  ({len(made.lms_learners)} of the learners)"]
    emit(as_json, document, "\n".join(lines))
