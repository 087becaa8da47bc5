"""Makes the golden vectors of format version 1 below ``tests/vectors/v1``: the same bytes every time.

Other implementations test themselves against these files; ``protos/SPEC.md`` explains what is in them. A test
regenerates and compares. Once the format is frozen, ``v1/DIGEST`` pins them all, and a change of any is a new version.

Example::

    $ python -m tests.vectors.generate             # write the files
    $ python -m tests.vectors.generate --freeze    # and pin their digest
"""

from __future__ import annotations

import argparse
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.vectors.making import format_vectors, ledger_vectors, slice_vectors, statement_vectors

FOLDER = Path(__file__).parent / "v1"
DIGEST = FOLDER / "DIGEST"


def vectors() -> dict[str, str]:
    """File name → content, of all vectors."""
    content: dict[str, Any] = {
        "statements.json": {"good": statement_vectors.good(), "bad": statement_vectors.bad()},
        "slices.json": {"good": slice_vectors.good(), "bad": slice_vectors.bad()},
        "keys.json": format_vectors.keys(),
        "seals.json": format_vectors.seals(),
        "digests.json": format_vectors.digests(),
        "greeting.json": format_vectors.greeting(),
        "sections.json": format_vectors.sections(),
        "attenuation.json": format_vectors.attenuation(),
        "linking.json": format_vectors.linking(),
        "ledger.json": ledger_vectors.ledger(),
    }
    return {name: json.dumps(each, indent=1, ensure_ascii=False) + "\n" for name, each in content.items()}


def digest() -> str:
    """SHA-256 over ``name NUL length NUL content`` of every file as it stands, ascending by name."""
    hashed = sha256()
    for path in sorted(FOLDER.glob("*.json")):
        content = path.read_bytes()
        hashed.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return hashed.hexdigest()


def main() -> None:
    """Write the files; with ``--freeze`` also their digest."""
    parser = argparse.ArgumentParser(prog="python -m tests.vectors.generate", description="Golden vectors.")
    parser.add_argument("--freeze", action="store_true", help="pin the digest of all vectors")
    freeze = parser.parse_args().freeze
    FOLDER.mkdir(exist_ok=True)
    for name, content in vectors().items():
        (FOLDER / name).write_text(content, "utf-8")
        print(f"wrote {name}: {len(content)} characters")
    if freeze:
        DIGEST.write_text(digest() + "\n", "utf-8")
        print(f"pinned {digest()}")


if __name__ == "__main__":
    main()
