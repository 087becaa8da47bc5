"""The public interface is what ``__all__`` and ``docs/reference/sdk.md`` say; importing it costs next to nothing."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import permslip
from permslip import errors


def documented(repo_root: Path) -> list[str]:
    text = (repo_root / "docs" / "reference" / "sdk.md").read_text("utf-8")
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def test_every_public_name_is_documented_once(repo_root: Path) -> None:
    assert sorted(documented(repo_root)) == sorted(permslip.__all__)


def test_every_public_name_can_be_had_and_says_what_it_is() -> None:
    for name in permslip.__all__:
        value = getattr(permslip, name)
        assert value.__name__ == name
        assert inspect.getdoc(value), name


def test_every_error_is_public() -> None:
    assert set(errors.__all__) <= set(permslip.__all__)


def test_public_names_are_listed_by_dir() -> None:
    assert set(permslip.__all__) <= set(dir(permslip))


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Widget'"):
        _ = permslip.Widget


@pytest.mark.parametrize("heavy", ["grpc", "google.protobuf", "nacl", "click", "pandas", "sqlalchemy"])
def test_importing_the_package_imports_nothing_heavy(heavy: str) -> None:
    code = f"import sys, permslip; sys.exit({heavy!r} in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
