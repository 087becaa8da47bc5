"""What the commands of ``permslip audit`` share: whom to trust, progress, findings as text and JSON, exit codes.

Rules:

- 0 is clean, 1 is findings, 2 is «could not check», whatever kept it from being checked: also an interruption, a file
  that cannot be written, and what nobody foresaw.
- Progress goes to standard error, and not at all with ``--json``.
- Findings are in the bundle; what is printed is the first of them, faults before warnings before notes.
"""

from __future__ import annotations

import functools
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import click

from permslip.cli.output import emit, plain, print_error, table
from permslip.errors import ConfigurationError, PermslipError

if TYPE_CHECKING:
    from permslip.auditing.bundle import Bundle
    from permslip.auditing.results import Progress, Result, Trust
    from permslip.client.settings import Settings

__all__ = ["EXIT_UNCHECKED", "bundle_path", "checking", "findings_of", "finish", "summary", "trust_of", "watched"]

EXIT_UNCHECKED: Final = 2
_SHOWN: Final = 20
_LISTED: Final = 200

P = ParamSpec("P")
R = TypeVar("R")

bundle_path = click.Path(path_type=Path, dir_okay=False)


def checking(function: Callable[P, R]) -> Callable[P, R]:
    """Turn whatever ends a command early into a message and exit code 2: it could not be checked."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except PermslipError as error:
            print_error(error, as_json=bool(kwargs.get("as_json")))
            sys.exit(EXIT_UNCHECKED)
        except ModuleNotFoundError as error:
            raise click.UsageError(
                f"this needs {error.name}. Install it with: pip install 'permslip[audit]'"
            ) from error
        except click.ClickException as error:
            error.show()
        except (KeyboardInterrupt, click.Abort):
            click.echo("Interrupted.", err=True)
        except sqlite3.Error as error:
            failed = ConfigurationError(
                f"cannot be used: {error}.",
                key="bundle",
                remedy="Check that it is yours to write, and used by nobody else.",
            )
            print_error(failed, as_json=bool(kwargs.get("as_json")))
        except Exception:  # noqa: BLE001 (whatever it is: Python's own exit code for it would read as «findings»)
            click.echo(traceback.format_exc(), err=True)
        sys.exit(EXIT_UNCHECKED)

    return guarded


def trust_of(settings: Settings) -> Trust:
    """Whom the settings trust.

    Raises:
        ConfigurationError: a key is missing or wrong.
        PermslipError: the file of witness sets does not hold.
    """
    from permslip.armor import read_statements
    from permslip.auditing.results import Trust
    from permslip.keys import PublicKey
    from permslip.witnesses import verify_witness_sets

    federation = settings.need("federation")
    keys = {}
    for name in ("broker_root", "operator"):
        try:
            keys[name] = PublicKey.from_did(settings.need(name)).raw
        except PermslipError as error:
            raise ConfigurationError(error.message, key=name, remedy=error.remedy) from error
    file = settings.get("witnesses")
    pinned = None
    if file:
        pinned = verify_witness_sets(read_statements(file), federation=federation, operator=keys["operator"])
    return Trust(federation, keys["broker_root"], keys["operator"], pinned)


@contextmanager
def watched(*, quiet: bool) -> Iterator[Progress]:
    """Bars on standard error while it lasts; nothing when ``quiet``."""
    from permslip.auditing.results import silent

    if quiet or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    # A keeper's name is no markup.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def told(doing: str, done: int, total: int) -> None:
            if doing not in tasks:
                tasks[doing] = progress.add_task(plain(doing), total=None)
            progress.update(tasks[doing], completed=done, total=total or None)

        yield told


def findings_of(bundle: Bundle, step: str, *, most: int = _LISTED) -> list[dict[str, Any]]:
    """The first findings of a step, faults first."""
    rows = bundle.db.execute(
        "SELECT f.severity, f.code, l.name, f.position, f.message FROM finding f"
        " LEFT JOIN ledger l ON l.ledger = f.ledger WHERE f.step = ?"
        " ORDER BY f.severity = 'note', f.severity = 'warning', f.finding LIMIT ?",
        (step, most),
    )
    names = ("severity", "code", "ledger", "position", "message")
    return [dict(zip(names, row, strict=True)) for row in rows]


def summary(result: Result, *, about: str) -> str:
    """A result without its findings, for people."""
    words = {"clean": "clean", "findings": f"{result.faults} faults", "unchecked": "could not be checked"}
    lines = [f"{about}: {words[result.word]}"]
    lines += [f"  {count:,} {name}" for name, count in result.counts.items()]
    if result.unchecked:
        lines.append(f"Not everything could be checked: {result.unchecked}")
    return "\n".join(lines)


def finish(
    result: Result, listed: list[dict[str, Any]], *, as_json: bool, about: str, is_verified: bool | None = None
) -> None:
    """Print a result and end with its exit code; ``is_verified`` says whether its bundle is, where that matters."""
    from permslip.auditing.codes import Code

    document = {**result.to_dict(), "about": about, "listed": listed}
    if is_verified is not None:
        document["verified"] = is_verified
    lines = [summary(result, about=about)]
    shown = listed[:_SHOWN]
    if shown:
        rows = [(each["severity"], each["code"], each["message"]) for each in shown]
        lines += ["", table(("severity", "code", "what"), rows)]
    rest = sum(result.findings.values()) - len(shown)
    if rest > 0:
        lines.append(f"… and {rest} more.")
    told = {each["code"] for each in shown if each["severity"] != "note"}
    lines += [f"{code}: {Code(code).meaning} {Code(code).remedy}" for code in sorted(told)]
    emit(as_json, document, "\n".join(lines))
    sys.exit(result.exit_code)
