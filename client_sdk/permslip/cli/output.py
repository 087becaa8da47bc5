"""How commands print, fail and talk to machines.

Rules:

- ``--json`` prints one JSON document on standard output and nothing else there; people see the same facts as text.
- Errors go to standard error: what was expected, what came, what to do next. With ``--json`` they are a JSON document
  on standard error too.
- What others said (names, messages) cannot move a terminal's cursor: only what is printable is printed.
- Passphrases come from a prompt or from the file that ``PERMSLIP_PASSPHRASE_FILE`` names; never from an argument.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import click

from permslip.errors import PermslipError, RefusedError

__all__ = [
    "EXIT_FAILED",
    "EXIT_PART",
    "EXIT_REFUSED",
    "command_errors",
    "emit",
    "json_option",
    "passphrase",
    "plain",
    "print_error",
    "table",
]

EXIT_FAILED: Final = 1
EXIT_PART: Final = 3
EXIT_REFUSED: Final = 4

P = ParamSpec("P")
R = TypeVar("R")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def emit(as_json: bool, document: Any, text: str) -> None:
    """Print a result.

    Args:
        as_json: what ``--json`` said.
        document: what JSON can hold; bytes were made hexadecimal by the caller.
        text: the same for people.
    """
    click.echo(json.dumps(document, indent=2, ensure_ascii=False) if as_json else plain(text))


def plain(text: str) -> str:
    """Text of several lines without what a terminal would obey: a blank for each character that is not printable."""
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, for people; a cell is one line."""
    rows = [[plain(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(len(row[number]) for row in (headings, *rows)) for number in range(len(headings))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (headings, *rows))
    return "\n".join(line.rstrip() for line in lines)


def command_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn every :class:`~permslip.errors.PermslipError` into a message and an exit code."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except PermslipError as error:
            print_error(error, as_json=bool(kwargs.get("as_json")))
            sys.exit(EXIT_REFUSED if isinstance(error, RefusedError) else EXIT_FAILED)

    return guarded


def passphrase(prompt: str, *, confirm: bool = False) -> bytes:
    """Ask for a passphrase, or read the file that ``PERMSLIP_PASSPHRASE_FILE`` names."""
    if path := os.environ.get("PERMSLIP_PASSPHRASE_FILE"):
        try:
            return Path(path).read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise click.ClickException(f"PERMSLIP_PASSPHRASE_FILE: {error.strerror}: {path}") from error
    typed: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return typed.encode()


def print_error(error: PermslipError, *, as_json: bool) -> None:
    """Tell an error on standard error, as text or as a JSON document."""
    if as_json:
        document = {
            "error": type(error).__name__,
            "message": error.message,
            "remedy": error.remedy,
            "code": getattr(error, "code", ""),
            "field": getattr(error, "field", ""),
        }
        click.echo(json.dumps(document, ensure_ascii=False), err=True)
        return
    code = f" [{error.code}]" if isinstance(error, RefusedError) else ""
    click.secho(f"Error{code}: ", fg="red", bold=True, nl=False, err=True)
    click.echo(plain(str(error)), err=True)
