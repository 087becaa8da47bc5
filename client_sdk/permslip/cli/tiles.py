"""How ``export-tiles`` of broker and node tell what they wrote."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from permslip.cli.output import emit

if TYPE_CHECKING:
    from permslip.hosting.tile_export import Exported

__all__ = ["emit_exported"]


def emit_exported(as_json: bool, folder: Path, exported: Exported) -> None:
    """Print it."""
    lines = [
        str(folder),
        f"{exported.size:,} entries",
        f"{exported.tiles:,} tiles and {exported.bundles:,} bundles of entries written, {exported.kept:,} were there",
    ]
    if exported.erased:
        lines.append(f"{exported.erased:,} bundles left out: they hold erased entries")
    emit(as_json, {"folder": str(folder)} | asdict(exported), "\n".join(lines))
