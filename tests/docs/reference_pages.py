"""The reference pages of what people type, write and are told: commands, settings, findings; made from the code.

Run ``python -m tests.docs.reference_pages`` to write them; a test compares them with the code.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import click

from permslip.auditing.codes import Code
from permslip.client.settings import KEYS
from permslip.hosting.configuration import environment_name
from permslip_broker.configuration import BrokerSettings
from permslip_node.configuration import NodeSettings
from tests.docs.command_tree import NamedCommand, command_tree, help_of
from tests.docs.pages import ROOT

__all__ = ["PAGES", "cli_page", "configuration_page", "findings_page"]

_REFERENCE: Final = ROOT / "docs" / "reference"

_CLI: Final = """\
# Commands

Every command of `permslip`, as `--help` shows it. This page is made from the commands themselves.

- Options of a group stand before its command: `permslip provider --config tutor.toml grants`.
- `--json` prints one JSON document on standard output and nothing else there. Errors go to standard error; with
  `--json` they are a JSON document too, with `error`, `message`, `remedy`, `code` and `field`.
- A passphrase is asked for, or read from the file that `PERMSLIP_PASSPHRASE_FILE` names. It is never an argument.
- Where the broker is comes from options, the environment or a `permslip.toml`: see
  [configuration](configuration.md#who-calls-a-broker).

| exit code | means |
| ---: | --- |
| 0 | done |
| 1 | failed; the message says why and what to do |
| 2 | called wrongly |
| 3 | done in part |
| 4 | refused by a broker or node; the message names the [reason](reasons.md) |

`permslip audit` answers a question instead: 0 is clean, 1 is findings, 2 is «could not check».
"""

_CONFIGURATION: Final = """\
# Configuration

What broker, node and clients can be told. This page is made from the code that reads it.

Broker and node read one TOML file (`--config`). Everything is checked at start: an unknown key, a wrong type or a
value out of range is an error that names the key. Each key can be overridden from the environment, by the variable
that stands beside it; a list is written there with commas. Relative paths in a file are relative to that file. No
secret stands in a configuration: keys and passphrases are in files that it names.
"""

_CLIENT: Final = """\
## Who calls a broker

`permslip guardian`, `provider` and `operator` take what an option says; failing that what the environment says; failing
that what stands in a `permslip.toml`: the one that `--config` or `PERMSLIP_CONFIG` names, else one in the working
directory. Every key may be left out. Paths are relative to the file. `permslip broker init` writes one to hand out,
with four keys; `permslip node init --join` reads it.

| key | environment | means |
| --- | --- | --- |
"""

_FINDINGS: Final = """\
# Findings

Every code that `permslip audit` can report: what it means, and what to do. This page is made from the codes.
[Auditing](../auditing.md) says how they come about. A finding is a *fault*, a *warning* or a *note*; a fault alone
makes the exit code 1.

| code | means | what to do |
| --- | --- | --- |
"""

_SAYS: Final = {
    "broker": "`HOST:PORT` of the broker; several with commas, if they are replicas",
    "broker_root": "the broker's root key, `did:key:…`; whatever answers at the address must prove to have it",
    "federation": "the federation's name",
    "operator": "the key of the federation's operator, `did:key:…`; who is admitted is believed by it alone",
    "tls_ca": "PEM file of the certificates to trust instead of the system's",
    "key": "private key file of a provider, of an auditor or of the operator",
    "cert": "the key certificate of a provider or auditor",
    "wallet": "a guardian's folder, with her key, her children and her consents",
    "witnesses": "file of the federation's witness sets: who must have cosigned the broker's ledger",
}
_WORDS: Final = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}


def cli_page() -> str:
    """``docs/reference/cli.md``."""
    commands = list(command_tree())
    lines = [_CLI, "| command | |", "| --- | --- |"]
    lines += [
        f"| [`{each.name}`](#{each.name.replace(' ', '-')}) | {_cell(help_of(each.command).sentence)} |"
        for each in commands
        if not each.is_group
    ]
    for each in commands[1:]:
        lines += ["", *_command(each)]
    return "\n".join(lines) + "\n"


def _command(named: NamedCommand) -> Iterator[str]:
    told = help_of(named.command)
    yield f"{'##' if named.is_group else '###'} {named.name}"
    for paragraph in (told.sentence, *told.more):
        yield ""
        yield paragraph
    yield ""
    yield f"Usage: `{' '.join([named.name, *_usage(named.command)])}`"
    yield ""
    yield f"Example: `{told.example}`"
    yield ""
    yield f"Exit codes: {told.exit_codes}"
    options = [each for each in named.command.params if isinstance(each, click.Option) and not each.hidden]
    if options:
        yield ""
        yield "| option | means |"
        yield "| --- | --- |"
        yield from (_option(each, named.command) for each in options)


def _usage(command: click.Command) -> list[str]:
    return command.collect_usage_pieces(click.Context(command))


def _option(option: click.Option, command: click.Command) -> str:
    record = option.get_help_record(click.Context(command))
    assert record is not None
    names, says = record
    return f"| `{_cell(names)}` | {_cell(says)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def findings_page() -> str:
    """``docs/reference/findings.md``."""
    lines = [f"| `{each}` | {_cell(each.meaning)} | {_cell(each.remedy)} |" for each in Code]
    return _FINDINGS + "\n".join(lines) + "\n"


def configuration_page() -> str:
    """``docs/reference/configuration.md``."""
    lines = [_CONFIGURATION]
    for title, cls, section, example in (
        ("A broker", BrokerSettings, "broker", "deploy/broker.toml"),
        ("A node", NodeSettings, "node", "deploy/node.toml"),
    ):
        lines += [f"## {title}: `[{section}]`", "", f"[{example}](../../{example}) shows every key with its default."]
        lines += ["", *_tables(cls, section)]
    lines += [_CLIENT + "\n".join(f"| `{key}` | `PERMSLIP_{key.upper()}` | {_SAYS[key]} |" for key in KEYS)]
    return "\n".join(lines) + "\n"


def _tables(cls: Any, dotted: str) -> Iterator[str]:
    hints, said = typing.get_type_hints(cls), _attributes(cls)
    nested: list[tuple[Any, str]] = []
    yield "| key | takes | default | means | environment |"
    yield "| --- | --- | --- | --- | --- |"
    for field in dataclasses.fields(cls):
        wanted = hints[field.name]
        if dataclasses.is_dataclass(wanted):
            nested.append((wanted, f"{dotted}.{field.name}"))
            continue
        variable = environment_name(f"{dotted}.{field.name}")
        yield f"| `{field.name}` | {_takes(wanted, field)} | {_default(field)} | {said[field.name]} | `{variable}` |"
    yield ""
    for inner, name in nested:
        yield f"### `[{name}]`"
        yield ""
        yield " ".join(inspect.cleandoc(inner.__doc__ or "").split("\n\n")[0].split())
        yield ""
        yield from _tables(inner, name)


def _attributes(cls: Any) -> dict[str, str]:
    """What a dataclass's docstring says of each attribute."""
    _, _, part = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    said: dict[str, str] = {}
    for names, text in re.findall(r"^ {4}([\w, ]+): ((?:.*)(?:\n {8}.*)*)", part, re.MULTILINE):
        for name in names.split(", "):
            said[name] = re.sub(r"``([^`]*)``", r"`\1`", " ".join(text.split())).replace("|", "\\|").rstrip(".")
    return said


def _takes(wanted: Any, field: dataclasses.Field[Any]) -> str:
    rule = field.metadata.get("permslip.setting")
    bounds = [
        f"{word} {_number(bound)}"
        for word, bound in (("at least", getattr(rule, "minimum", None)), ("at most", getattr(rule, "maximum", None)))
        if bound is not None
    ]
    return ", ".join([_kind(wanted), *bounds])


def _kind(wanted: Any) -> str:
    origin = typing.get_origin(wanted)
    if origin in {types.UnionType, typing.Union}:
        return _kind(next(each for each in typing.get_args(wanted) if each is not type(None)))
    if origin is Literal:
        return " or ".join(f'`"{each}"`' for each in typing.get_args(wanted))
    if origin is tuple:
        return f"list of {_kind(typing.get_args(wanted)[0])}"
    return _WORDS[wanted]


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if value is dataclasses.MISSING:
        return "**required**"
    if value is None or value in ("", ()):
        return ""
    return f'`"{value}"`' if isinstance(value, str) else f"`{_number(value)}`"


def _number(value: float) -> str:
    return f"{int(value)}" if float(value).is_integer() else f"{value}"


PAGES: Final[dict[Path, Callable[[], str]]] = {
    _REFERENCE / "cli.md": cli_page,
    _REFERENCE / "configuration.md": configuration_page,
    _REFERENCE / "findings.md": findings_page,
}


def main() -> None:
    """Write the pages."""
    _REFERENCE.mkdir(parents=True, exist_ok=True)
    for path, page in PAGES.items():
        path.write_text(page(), "utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
