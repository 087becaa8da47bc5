"""Fixtures for the importers: small files written on the spot, and the Grand Bend data where there are any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from permslip_node.importing import MemorySink, import_edfi

WriteEdFi = Callable[[str, str], Path]

NAMESPACE = "http://ed-fi.org/0100"


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def write_edfi(tmp_path: Path) -> WriteEdFi:
    """Writes ``<Interchange…>`` with the given content; gives the file's path."""

    def write(interchange: str, content: str) -> Path:
        path = tmp_path / "edfi" / f"{interchange}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Interchange{interchange} xmlns="{NAMESPACE}">\n'
            f"{content}\n</Interchange{interchange}>\n",
            encoding="utf-8",
        )
        return path

    return write


@pytest.fixture(scope="session")
def edfi_subset(shared_data: Path) -> Path:
    """128 learners, unpacked."""
    return shared_data / "grandbend" / "edfi-1.0-subset"


@pytest.fixture(scope="session")
def edfi_zip(shared_data: Path) -> Path:
    """All 960 learners, as one archive."""
    return shared_data / "grandbend" / "edfi-1.0-full" / "EdFiSampleData.zip"


@pytest.fixture(scope="session")
def subset_sink(edfi_subset: Path) -> MemorySink:
    """What the 128 learners' files give; tests only read it."""
    filled = MemorySink()
    import_edfi([edfi_subset], filled)
    return filled
