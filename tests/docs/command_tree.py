"""The ``permslip`` command as a tree, and what the help of each command says."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import click

from permslip.cli import main

__all__ = ["Help", "NamedCommand", "command_tree", "help_of"]

_EXAMPLE: Final = "Example: "
_EXIT: Final = "Exit codes: "


@dataclass(frozen=True, slots=True)
class NamedCommand:
    """One command with its full name, e.g. ``permslip node import``."""

    name: str
    command: click.Command

    @property
    def is_group(self) -> bool:
        """Whether it holds other commands."""
        return isinstance(self.command, click.Group)


@dataclass(frozen=True, slots=True)
class Help:
    """The parts of a command's help.

    Attributes:
        sentence: its first paragraph.
        more: the paragraphs after it.
        example: what can be typed; empty where there is none.
        exit_codes: what they mean; empty where it does not say.
    """

    sentence: str
    more: tuple[str, ...]
    example: str
    exit_codes: str


def command_tree() -> Iterator[NamedCommand]:
    """Every command, groups before what they hold."""
    yield from _below("permslip", main)


def _below(name: str, command: click.Command) -> Iterator[NamedCommand]:
    yield NamedCommand(name, command)
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None, f"{name} lists {each}, which it does not have"
            yield from _below(f"{name} {each}", found)


def help_of(command: click.Command) -> Help:
    """Take a command's help apart."""
    paragraphs = [" ".join(each.split()) for each in inspect.cleandoc(command.help or "").split("\n\n")]
    example = next((each.removeprefix(_EXAMPLE) for each in paragraphs if each.startswith(_EXAMPLE)), "")
    exit_codes = next((each.removeprefix(_EXIT) for each in paragraphs if each.startswith(_EXIT)), "")
    rest = [each for each in paragraphs if not each.startswith((_EXAMPLE, _EXIT))]
    return Help(rest[0] if rest else "", tuple(rest[1:]), example, exit_codes)
