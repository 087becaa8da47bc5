"""The demo's voice: plain sentences, a few tables, progress bars; colours only where somebody looks on.

Rules:

- What is told is text, never markup: ``did:key:`` is no emoji, and a name in brackets is no colour.

Example::

    narrator = Narrator(Console())
    narrator.act("A parent links")
    narrator.say("Carmen holds a slip that the school printed.")
    with narrator.progress("linking families", total=60) as advance:
        advance()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

__all__ = ["Narrator"]


class Narrator:
    """Tells what happens.

    Args:
        console: where to; rich leaves colours and moving bars away where it is no terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._acts = 0

    def act(self, title: str) -> None:
        """Begin the next act."""
        self._acts += 1
        self._console.print()
        self._console.print(Text(f"{self._acts} · {title}", style="bold cyan"))

    def say(self, text: str) -> None:
        """A paragraph."""
        self._line(Text(text))

    def command(self, text: str) -> None:
        """A command to be copied: on a line of its own, however long."""
        self._console.print(Text(f"      {text}", style="bold"), soft_wrap=True)

    def done(self, text: str) -> None:
        """Something came out as it should."""
        self._line(Text.assemble(("✓ ", "green"), text))

    def refused(self, text: str) -> None:
        """Something was refused, as it should be."""
        self._line(Text.assemble(("✗ ", "yellow"), text))

    def failed(self, text: str) -> None:
        """Something did not come out as it should."""
        self._line(Text(f"! {text}", style="bold red"))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = ()) -> None:
        """Rows under heads.

        Args:
            heads: of the columns.
            rows: what stands in them.
            numbers: the columns to be set flush right.
        """
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column, head in enumerate(heads):
            table.add_column(Text(head), justify="right" if column in numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        self._console.print(Padding(table, (0, 0, 0, 4)))

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Show how far something of known size is; call what is yielded once for each step."""
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda: progress.advance(task)

    def _line(self, text: Text) -> None:
        self._console.print(Padding(text, (0, 0, 0, 2)))
