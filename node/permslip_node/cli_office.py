"""``permslip node suspend``, ``reinstate``, ``quorum``, ``visibility``, ``majority``, ``revoke``: the operator's acts.

All of them work beside the running node, which notices within a fraction of a second, and while it is down.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from permslip.cli.output import EXIT_PART, command_errors, emit, json_option
from permslip_node.configuration import load_settings

if TYPE_CHECKING:
    from permslip._pb.permslip.v1 import statement_pb2 as pb
    from permslip_node.administration import Done, Office
    from permslip_node.configuration import NodeSettings

__all__ = ["majority", "quorum", "reinstate", "revoke", "suspend", "visibility"]

_PATIENCE_S = 10.0

_config = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file; without it everything comes from PERMSLIP_NODE__… variables.",
)


@click.command()
@click.argument("person")
@click.argument("learner")
@_config
@json_option
@command_errors
def suspend(person: str, learner: str, config: Path | None, as_json: bool) -> None:
    """Suspend PERSON's authority over LEARNER (both by the source's ids), as a court orders.

    Consents that she alone signed end at once. She may still revoke what she signed, and nothing else.

    Example: permslip node suspend 2037 604822 --config high/node.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 done, but the running node has not noticed yet, 4 no such person.
    """
    _authority(
        config, as_json, f"{person} is suspended as to {learner}", lambda office: office.suspend(learner, person)
    )


@click.command()
@click.argument("person")
@click.argument("learner")
@_config
@json_option
@command_errors
def reinstate(person: str, learner: str, config: Path | None, as_json: bool) -> None:
    """End the suspension of PERSON as to LEARNER. Consents that ended by it stay ended; she signs new ones.

    Example: permslip node reinstate 2037 604822 --config high/node.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 done, but the running node has not noticed yet, 4 no such person.
    """
    _authority(
        config, as_json, f"{person} is reinstated as to {learner}", lambda office: office.reinstate(learner, person)
    )


@click.command()
@click.argument("learner")
@click.argument("rule", type=click.Choice(["any", "all"]))
@_config
@json_option
@command_errors
def quorum(learner: str, rule: str, config: Path | None, as_json: bool) -> None:
    """Set who must sign for LEARNER: any one guardian, or all of them.

    Consents that do not meet the rule any more end at once.

    Example: permslip node quorum 604822 all --config high/node.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 done, but the running node has not noticed yet, 4 no such learner.
    """
    _authority(config, as_json, f"{learner}: {rule} must sign", lambda office: office.quorum(learner, rule))


@click.command()
@click.argument("learner")
@click.argument("rule", type=click.Choice(["shown", "hidden"]))
@_config
@json_option
@command_errors
def visibility(learner: str, rule: str, config: Path | None, as_json: bool) -> None:
    """Let the guardians of LEARNER learn of one another, or hide them from one another, as a court may order.

    Hidden, each sees, and can revoke, what she signed herself and nothing else: neither the other's consents nor what
    was read under them.

    Example: permslip node visibility 604822 hidden --config high/node.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 done, but the running node has not noticed yet, 4 no such learner.
    """
    visible = rule == "shown"
    _authority(
        config,
        as_json,
        f"{learner}: guardians are {rule} from one another" if not visible else f"{learner}: guardians are {rule}",
        lambda office: office.visibility(learner, visible=visible),
    )


@click.command()
@click.argument("learner")
@click.option("--on", "day", type=click.DateTime(formats=["%Y-%m-%d"]), help="The day, YYYY-MM-DD; from 00:00 UTC on.")
@click.option(
    "--forget", is_flag=True, help="Take back what was said here; imports say it again, where majority_age is set."
)
@_config
@json_option
@command_errors
def majority(learner: str, day: datetime | None, forget: bool, config: Path | None, as_json: bool) -> None:
    """Set the day on which LEARNER comes of age and decides alone.

    On that day every consent that her guardians signed ends by itself. She signs new ones with her own key, which
    «permslip node slip LEARNER self» links, before that day or after. A day in the past takes effect at once; a day
    that is taken back gives her guardians their authority again, and revives no consent. What is set here stands,
    whatever birth date an import brings.

    Example: permslip node majority 604822 --on 2027-05-04 --config high/node.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 done, but the running node has not noticed yet, 4 no such learner.
    """
    if (day is None) != forget:
        raise click.UsageError("Give either --on YYYY-MM-DD or --forget.")
    said = f"{learner} comes of age on {day:%Y-%m-%d}" if day is not None else f"{learner}: no day of majority is set"
    _authority(config, as_json, said, lambda office: office.majority(learner, day.date() if day is not None else None))


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_config
@json_option
@command_errors
def revoke(file: Path, config: Path | None, as_json: bool) -> None:
    """Take the signed revocations that a parent brought as FILE, past broker and network.

    They are in force when this command ends. Those that FILE holds for other nodes are left to them. The node's
    acknowledgements, and the revocations themselves, go up to the brokers when they are attached.

    Example: permslip node revoke revocation.txt --config high/node.toml

    Exit codes: 0 in force, 1 failed or not to be believed, 2 called wrongly, 3 recorded, but the running node has not
    noticed yet.
    """
    from permslip_node.administration import Done, open_office

    settings = load_settings(config, os.environ)
    envelopes, others = _for_this_node(file, settings)

    async def work() -> tuple[list[dict[str, Any]], bool]:
        taken: list[dict[str, Any]] = []
        done = Done(0)
        async with open_office(settings) as office:
            for envelope in envelopes:
                acknowledgement, done = await office.revoke(envelope)
                payload = acknowledgement.payload
                taken.append(
                    {
                        "revocation": payload.statement_id.hex(),
                        "target": payload.target_id.hex(),
                        "acknowledgement": acknowledgement.id.hex(),
                        "ledger_size": payload.ledger_size,
                    }
                )
            return taken, await office.noticed(done, patience=_PATIENCE_S)

    taken, noticed = asyncio.run(work())
    said = "in force" if noticed else "recorded; the running node has not noticed yet"
    lines = [f"Revoked: {each['target']}\n{said} (ledger entry {each['ledger_size'] - 1})" for each in taken]
    if others:
        lines.append(f"{others} for other nodes: bring the file there too")
    # What one revocation came to stands at the top; a file that a parent wrote may hold several.
    emit(as_json, {**taken[0], "revocations": taken, "others": others, "in_force": noticed}, "\n".join(lines))
    if not noticed:
        sys.exit(EXIT_PART)


def _for_this_node(file: Path, settings: NodeSettings) -> tuple[list[pb.Envelope], int]:
    """The revocations in a file that name this node, and how many name others."""
    from permslip import statements as st
    from permslip.armor import read_statements
    from permslip.clock import system_clock
    from permslip.errors import AuthorityError
    from permslip_node.identity import load_identity

    root = load_identity(settings, now=system_clock()).root
    envelopes = read_statements(file)
    named = [st.verify(st.REVOCATION, each, federation=settings.federation).payload.node for each in envelopes]
    mine = [envelope for envelope, node in zip(envelopes, named, strict=True) if node == root]
    if not mine:
        raise AuthorityError(
            f"{file}: no revocation in it is meant for this node.", remedy="It belongs to the school that it names."
        )
    return mine, len(envelopes) - len(mine)


def _authority(config: Path | None, as_json: bool, said: str, act: Callable[[Office], Awaitable[Done]]) -> None:
    from permslip_node.administration import open_office

    settings = load_settings(config, os.environ)

    async def work() -> tuple[Done, bool]:
        async with open_office(settings) as office:
            done = await act(office)
            return done, await office.noticed(done, patience=_PATIENCE_S)

    done, noticed = asyncio.run(work())
    document = {"ledger_size": done.position, "endorsements_judged": done.endorsements, "in_force": noticed}
    emit(as_json, document, f"{said}. Consents judged again: {done.endorsements}.")
    if not noticed:
        sys.exit(EXIT_PART)
