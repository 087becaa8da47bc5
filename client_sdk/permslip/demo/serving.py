"""``--serve``: after the last act everything stays up, and whoever looks on is told how to use it.

Example::

    stay_up(stage)          # until Ctrl-C
"""

from __future__ import annotations

import shlex
import threading
from contextlib import suppress
from pathlib import Path

from permslip.demo.stage import Stage

__all__ = ["commands_to_try", "stay_up"]


def commands_to_try(stage: Stage) -> list[tuple[str, str]]:
    """What to say from another terminal: what it does, and the command."""
    federation = stage.federation
    family = next(each.family for each in stage.given_to(stage.tutor) if each.family is not stage.revoked)
    wallet = family.guardians[0].wallet
    settings = wallet.with_name(f"{wallet.name}-settings")
    federation.write_settings(settings, wallet=wallet)
    operator, tutor = federation.folder / "operator" / "permslip.toml", stage.tutor.config
    return [
        ("which nodes are attached", _command("operator", "--config", operator, "status")),
        ("what the tutor was granted", _command("provider", "--config", tutor, "grants")),
        ("a profile", _command("provider", "--config", tutor, "profile", family.reference)),
        (
            f"who looked at {family.name}'s records",
            _command("guardian", "--config", settings / "permslip.toml", "accesses"),
        ),
        ("what a school holds", _command("node", "report", "--config", stage.nodes[0].config)),
    ]


def stay_up(stage: Stage) -> None:
    """Tell how to use what runs, then wait for Ctrl-C."""
    narrator = stage.narrator
    with suppress(KeyboardInterrupt):
        narrator.act("It stays up")
        narrator.say("From another terminal, for example:")
        for what, command in commands_to_try(stage):
            narrator.say(f"{what}:")
            narrator.command(command)
        narrator.say("Ctrl-C ends everything.")
        threading.Event().wait()


def _command(*arguments: str | Path) -> str:
    return shlex.join(["permslip", *map(str, arguments)])
