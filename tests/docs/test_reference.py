"""The reference pages agree with the code, and the help of every command is documentation."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from permslip.cli import main
from tests.docs.command_tree import NamedCommand, command_tree, help_of
from tests.docs.pages import ROOT
from tests.docs.reference_pages import PAGES

COMMANDS = list(command_tree())


def named(each: NamedCommand) -> str:
    return each.name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_reference_page_is_what_the_code_says(path: Path) -> None:
    assert path.read_text("utf-8") == PAGES[path](), "write it anew: python -m tests.docs.reference_pages"


def test_the_page_of_commands_lists_every_command() -> None:
    headings = re.findall(r"^##+ (permslip .*)$", (ROOT / "docs/reference/cli.md").read_text("utf-8"), re.MULTILINE)

    assert headings == [each.name for each in COMMANDS if each.name != "permslip"]


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_help_says_in_a_sentence_what_a_command_does_with_an_example_and_exit_codes(command: NamedCommand) -> None:
    told = help_of(command.command)

    assert re.fullmatch(r"[A-Z].{10,}\.", told.sentence)
    words = iter(told.example.split())
    assert all(word in words for word in command.name.split()), "the example shows this very command"
    assert told.exit_codes.startswith("0 ")
    assert told.exit_codes.endswith(".")


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_the_example_of_a_command_is_understood(
    command: NamedCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for typed in help_of(command.command).example.split(" && "):
        words = shlex.split(typed)
        assert words[0] == "permslip"
        for word in words[1:]:
            # Some arguments are files or folders that must exist.
            if word.endswith("/"):
                Path(word).mkdir(exist_ok=True)
            elif "." in word and not word.startswith(("-", "did:")):
                Path(word).parent.mkdir(exist_ok=True)
                Path(word).touch()
        understood(main, words)


def understood(command: click.Command, words: list[str]) -> None:
    """Parse as click would, through all groups, and stop before anything is done."""
    context = command.make_context(words[0], words[1:])
    if isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        name, inner, left = command.resolve_command(context, rest)
        assert name is not None
        assert inner is not None
        understood(inner, [name, *left])


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_every_option_says_what_it_is_for(command: NamedCommand) -> None:
    options = [each for each in command.command.params if isinstance(each, click.Option)]

    assert [each.name for each in options if not each.help] == []


def test_help_is_shown_for_every_command() -> None:
    for each in COMMANDS:
        shown = CliRunner().invoke(main, [*each.name.split()[1:], "--help"])

        assert shown.exit_code == 0, each.name
        assert "Usage:" in shown.output


def test_help_loads_no_transport_no_database_and_no_server() -> None:
    script = (
        "import sys\n"
        "from permslip.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print(*sorted(each for each in sys.modules if '.' not in each))\n"
    )

    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    modules = set(loaded.splitlines()[-1].split())

    assert {"permslip", "click"} <= modules
    assert modules.isdisjoint({"grpc", "google", "nacl", "sqlalchemy", "rich", "permslip_broker", "permslip_node"})
