"""``permslip node families`` and ``slip``: who is whose guardian, and what is printed for her."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from permslip.cli.output import command_errors, emit, json_option
from permslip.errors import RefusedError
from permslip_node.configuration import NodeSettings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from permslip_node.slips import IssuedSlip

__all__ = ["families", "slip"]

_config = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file; without it everything comes from PERMSLIP_NODE__… variables.",
)


@click.command()
@click.argument("learner", required=False)
@_config
@json_option
@command_errors
def families(learner: str | None, config: Path | None, as_json: bool) -> None:
    """List guardians: of LEARNER (the source's id), or of all.

    Example: permslip node families 604822 --config high/node.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    from permslip_node.cli import open_database
    from permslip_node.inspection import list_families

    with open_database(load_settings(config, os.environ)) as engine:
        lines = list(list_families(engine, learner))
    text = "\n".join(
        f"{each.learner:<14} {each.learner_name:<28} {each.person:<14} {each.person_name:<28} {each.relation:<16}"
        f" {'suspended' if each.suspended else 'removed' if each.removed else f'{each.keys} key(s)'}"
        for each in lines
    )
    emit(as_json, [each.to_dict() for each in lines], text or "Nobody.")


@click.command()
@click.argument("learner", required=False)
@click.argument("person", required=False)
@_config
@click.option(
    "--svg",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the QR code to this file; readable by you alone.",
)
@click.option(
    "--all-families",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Print a slip for every guardian into this file, one JSON document a line; readable by you alone.",
)
@json_option
@command_errors
def slip(
    learner: str | None,
    person: str | None,
    config: Path | None,
    svg: Path | None,
    all_families: Path | None,
    as_json: bool,
) -> None:
    """Print the slip by which PERSON links her key to LEARNER (both by the source's ids; «self» is the learner).

    A slip is as good as a key until it is used: hand it over in person or by sealed letter. Printing another voids the
    one before.

    Example: permslip node slip 604822 2037 --config high/node.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly, 4 no such learner or guardian, or one who may not be linked.
    """
    from permslip.clock import system_clock
    from permslip.slip import slip_svg, slip_terminal
    from permslip_node.cli import open_database
    from permslip_node.identity import load_identity

    settings = load_settings(config, os.environ)
    root = load_identity(settings, now=system_clock()).root
    with open_database(settings) as engine:
        if all_families is not None:
            count = _print_all(engine, settings, root, all_families)
            emit(as_json, {"slips": count, "file": str(all_families)}, f"{count:,} slips in {all_families}")
            return
        if learner is None or person is None:
            raise click.UsageError("Name LEARNER and PERSON, or give --all-families FILE.")
        issued = _issue(engine, settings, root, learner, person)
    if svg is not None:
        _write_private(svg, slip_svg(issued.slip))
    text = "\n".join(
        [
            f"{issued.person}, for {issued.learner}, at {settings.name}",
            "",
            issued.slip.text(),
            "",
            slip_terminal(issued.slip),
            f"Good for {settings.limits.slip_days} days and one phone.",
        ]
    )
    emit(as_json, _document(issued, learner, person), text)


def _print_all(engine: Engine, settings: NodeSettings, root: bytes, file: Path) -> int:
    from permslip_node.inspection import list_families

    issued = []
    for each in list(list_families(engine)):
        try:
            issued.append((each, _issue(engine, settings, root, each.learner, each.person)))
        except RefusedError as error:
            # One family's court order or grown-up learner must not keep the others' slips back.
            if error.code != "NOT_ALLOWED":
                raise
    lines = [json.dumps(_document(one, each.learner, each.person), ensure_ascii=False) for each, one in issued]
    _write_private(file, "".join(f"{line}\n" for line in lines))
    return len(lines)


def _issue(engine: Engine, settings: NodeSettings, root: bytes, learner: str, person: str) -> IssuedSlip:
    from permslip.clock import system_clock
    from permslip_node.slips import issue_slip

    return issue_slip(
        engine,
        root,
        learner,
        person,
        days=settings.limits.slip_days,
        now=system_clock(),
        default_rule=settings.quorum,
    )


def _document(issued: IssuedSlip, learner: str, person: str) -> dict[str, Any]:
    return {
        "learner": learner,
        "learner_name": issued.learner,
        "person": person,
        "person_name": issued.person,
        "slip": issued.slip.text(),
        "expires_at": issued.expires_at,
    }


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
    draft.replace(path)
