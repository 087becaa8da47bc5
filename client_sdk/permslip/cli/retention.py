"""What ``permslip broker erase`` and ``permslip node erase`` share: which day they erase before, and what they tell.

Example::

    @broker.command()
    @retention_options
    def erase(before: str, older_than: int | None, dry_run: bool) -> None:
        retention = retention_of(before, older_than, now=system_clock())
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from permslip.cli.output import emit

if TYPE_CHECKING:
    from permslip.hosting.erasing import Erased

__all__ = ["Retention", "emit_erased", "retention_of", "retention_options"]

F = TypeVar("F", bound=Callable[..., Any])


class Retention(NamedTuple):
    """Before which moment is erased (UTC milliseconds), and by which rule, as the ledger will say."""

    before: int
    day: str
    rule: str


def retention_options(function: F) -> F:
    """``--before``, ``--older-than`` and ``--dry-run``."""
    decorated = click.option("--dry-run", is_flag=True, help="Only tell what would go.")(function)
    decorated = click.option(
        "--older-than", type=click.IntRange(1), metavar="DAYS", help="What was over so many days ago."
    )(decorated)
    return click.option("--before", default="", metavar="YYYY-MM-DD", help="What was over before this day, UTC.")(
        decorated
    )


def retention_of(before: str, older_than: int | None, *, now: int) -> Retention:
    """What was asked for.

    Raises:
        click.UsageError: both or neither were given, or a day that is not over.
    """
    if bool(before) == (older_than is not None):
        raise click.UsageError("Give --before or --older-than.")
    today = datetime.fromtimestamp(now / 1_000, UTC).date()
    if older_than is not None:
        day, rule = today - timedelta(days=older_than), f"older-than-{older_than}-days"
    else:
        try:
            day = date.fromisoformat(before)
        except ValueError:
            raise click.UsageError(f"--before: expected a day such as 2026-09-01, got {before!r}.") from None
        rule = f"before-{day.isoformat()}"
    if day > today:
        raise click.UsageError(f"--before: {day} is not over yet; nothing is erased ahead of its time.")
    moment = datetime.combine(day, time.min, UTC)
    return Retention(round(moment.timestamp() * 1_000), day.isoformat(), rule)


def emit_erased(as_json: bool, erased: Erased, retention: Retention, *, dry_run: bool) -> None:
    """Tell what went, or would go."""
    document = {"before": retention.day, "rule": retention.rule, "dry_run": dry_run, **erased.to_dict()}
    verb = "would be erased" if dry_run else "erased"
    hanging = erased.statements - erased.grants
    lines = [
        f"{verb}: {erased.evidence} queries and manifests from before {retention.day},",
        f"  {erased.grants} grants that had ended by then, and {hanging} statements about them",
    ]
    if erased.kept:
        lines.append(f"  {erased.kept} more grants stay until what ended them has reached everybody")
    if erased.entries:
        lines.append(f"  {erased.entries} entries of the ledger say so; every hash and proof still holds")
    emit(as_json, document, "\n".join(lines))
