"""``python -m permslip_node.sample_district FOLDER``: write a sample district and say as JSON what it is.

Example::

    $ python -m permslip_node.sample_district build/district --learners 36 --seed 7
    {"edfi": "build/district/edfi", "lms": "build/district/lms", "schools": [{"identifier": "480901001", ...}], ...}
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from permslip_node.sample_district import generate_district


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--learners", type=click.IntRange(1, 100_000), default=36, show_default=True, help="How many.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same district.")
def main(folder: Path, learners: int, seed: int) -> None:
    """Write a district that does not exist below FOLDER: Ed-Fi XML in edfi/, a platform's CSV extract in lms/.

    Example: python -m permslip_node.sample_district build/district --learners 36 --seed 7

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    made = generate_district(folder, learners=learners, seed=seed)
    document = {
        "edfi": str(made.edfi),
        "lms": str(made.lms),
        "schools": [{"identifier": each.identifier, "name": each.name} for each in made.schools],
        "learners": made.learners,
        "lms_learners": made.lms_learners,
        "guardian_links": made.guardian_links,
    }
    click.echo(json.dumps(document))


if __name__ == "__main__":
    main()
