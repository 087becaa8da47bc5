"""The ``permslip`` command.

Each group of commands lives with what it commands and is imported only when it is called, so that ``permslip --help``
answers at once and the SDK alone needs no server.

Exit codes, the same for every command:

- 0: done.
- 1: failed; the message says why and what to do.
- 2: called wrongly.
- 3: done in part (rows rejected, a node unreachable, a revocation not yet acknowledged by all).
- 4: refused by a broker or node; the message names the reason.

But ``permslip audit`` answers a question: 0 is clean, 1 is findings, 2 is «could not check».
"""

from __future__ import annotations

import importlib
from typing import Final

import click

__all__ = ["main"]

# Group → where it lives, and what `permslip --help` says of it without importing it.
_GROUPS: Final[dict[str, tuple[str, str]]] = {
    "keys": ("permslip.cli.keys:keys", "Make, show and certify keys."),
    "guardian": ("permslip.cli.guardian:guardian", "Parents: link, grant, watch and revoke."),
    "provider": ("permslip.cli.provider:provider", "Providers: list grants, assemble profiles."),
    "operator": ("permslip.cli.operator:operator", "The federation's operator: admit and suspend."),
    "audit": ("permslip.cli.audit:audit", "Auditors: fetch ledgers, verify, replay, reconcile, report."),
    "broker": ("permslip_broker.cli:broker", "Run a broker."),
    "node": ("permslip_node.cli:node", "Run a school's or provider's node; import, slips, report."),
    "demo": ("permslip.cli.demo:demo", "A whole federation on this machine, narrated."),
}


class _Groups(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_GROUPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _GROUPS:
            return None
        module, _, attribute = _GROUPS[cmd_name][0].partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            extra = "node" if module.startswith("permslip_node") else "broker"
            raise click.ClickException(
                f"'permslip {cmd_name}' needs {error.name}. Install it with: pip install 'permslip[{extra}]'"
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _GROUPS.items()])


@click.command(cls=_Groups, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="permslip")
def main() -> None:
    """Permslip: permission slips for learner data.

    Parents grant and revoke; providers query; each school keeps its own records and decides last.

    Example: permslip demo

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 done in part, 4 refused.
    """
