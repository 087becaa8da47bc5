"""Generates the Python code of the wire contract, and says when the committed code has drifted from it.

Reads ``protos/permslip/**/*.proto`` and writes, below ``client_sdk/permslip/_pb/``, for each file

* ``*_pb2.py`` and ``*_pb2.pyi``: messages and their types;
* ``*_pb2_grpc.py`` and ``*_pb2_grpc.pyi``: services and their types, where the file declares a service.

Rules:

* The output is committed, so that nobody needs a compiler to install the package.
* protoc writes ``from permslip.v1 import grant_pb2``; the code lives in ``permslip._pb``, so these are
  rewritten, and only these: ``google.*`` stays. One of ours in an unknown shape is an error, not a guess.
* Whatever lies in the output folder and is not generated any more is deleted.
* The compiler and both plugins come from the environment that runs this file, never from ``PATH``.

Example::

    $ python protos/generate.py            # write
    $ python protos/generate.py --check    # compare with the committed code; exit 1 and name what differs
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
OUTPUT = PROTOS.parent / "client_sdk" / "permslip" / "_pb"
PACKAGE_DOCSTRING = '"""Generated from protos/ by protos/generate.py: do not edit."""\n'

_OUR_IMPORT = re.compile(r"^from permslip\.(?!_pb\b)(?=[\w.]+ import )", re.MULTILINE)
_UNKNOWN_IMPORT = re.compile(r"^\s*(?:import permslip\b|from permslip\b(?!\._pb\.)).*$", re.MULTILINE)
_SERVICE = re.compile(r"^service\s+\w+", re.MULTILINE)


class GenerationError(Exception):
    """The compiler failed, or wrote something that this file does not understand."""


def sources(protos: Path) -> list[Path]:
    """The wire contract's files, sorted, relative to ``protos``."""
    found = sorted(path.relative_to(protos) for path in (protos / "permslip").rglob("*.proto"))
    if not found:
        raise GenerationError(f"expected .proto files below {protos / 'permslip'}, found none")
    return found


def plugin(name: str) -> str:
    """``--plugin`` argument for a protoc plugin that is installed beside the running interpreter."""
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.is_file():
        raise GenerationError(f"{name} is not installed at {path}; run `make protos`, which installs it")
    return f"--plugin={name}={path}"


def compile_protos(protos: Path, files: list[Path], out: Path) -> None:
    """Runs protoc over ``files``; everything lands in ``out``."""
    compiler = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={protos}"]
    with_service = [file for file in files if _SERVICE.search((protos / file).read_text("utf-8"))]
    messages = [f"--python_out={out}", plugin("protoc-gen-mypy"), f"--mypy_out={out}"]
    services = [f"--grpc_python_out={out}", plugin("protoc-gen-mypy_grpc"), f"--mypy_grpc_out={out}"]
    for outputs, inputs in ((messages, files), (services, with_service)):
        if not inputs:
            continue
        command = [*compiler, *outputs, *map(str, inputs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise GenerationError(f"protoc failed with exit code {done.returncode}:\n{done.stderr.rstrip()}")


def move_imports(text: str, name: str) -> str:
    """``text`` with imports of our own generated modules pointing into ``permslip._pb``."""
    moved = _OUR_IMPORT.sub("from permslip._pb.permslip.", text)
    unknown = _UNKNOWN_IMPORT.search(moved)
    if unknown:
        raise GenerationError(f"{name}: do not know how to move this import: {unknown.group().strip()!r}")
    return moved


def generate(protos: Path) -> dict[Path, str]:
    """All generated files: path relative to the output folder → text."""
    with tempfile.TemporaryDirectory(prefix="permslip-pb-") as scratch:
        destination = Path(scratch)
        compile_protos(protos, sources(protos), destination)
        written = sorted(path for path in destination.rglob("*") if path.is_file())
        result = {path.relative_to(destination): move_imports(path.read_text("utf-8"), path.name) for path in written}
    for folder in {parent for path in result for parent in path.parents}:
        result[folder / "__init__.py"] = PACKAGE_DOCSTRING
    return result


def committed(output: Path) -> dict[Path, str]:
    """What lies in the output folder now, caches aside."""
    return {
        path.relative_to(output): path.read_text("utf-8")
        for path in sorted(output.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def differences(old: dict[Path, str], new: dict[Path, str]) -> list[str]:
    """One line for each path that is missing, superfluous or different; empty when nothing drifted."""
    lines = [f"missing: {path}" for path in new.keys() - old.keys()]
    lines += [f"not generated: {path}" for path in old.keys() - new.keys()]
    lines += [f"differs: {path}" for path in new.keys() & old.keys() if new[path] != old[path]]
    return sorted(lines)


def write(output: Path, files: dict[Path, str]) -> None:
    """Makes ``output`` hold exactly ``files``; files that did not change keep their time stamps."""
    old = committed(output)
    for path in old.keys() - files.keys():
        (output / path).unlink()
    for path, text in files.items():
        if old.get(path) != text:
            (output / path).parent.mkdir(parents=True, exist_ok=True)
            (output / path).write_text(text, "utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done or no drift, 1 drift, 2 could not generate."""
    parser = argparse.ArgumentParser(description="Generate the Python code of the wire contract.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on drift")
    parser.add_argument("--protos", type=Path, default=PROTOS, help="folder that holds permslip/")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder to write")
    options = parser.parse_args(arguments)
    try:
        files = generate(options.protos)
    except GenerationError as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return 2
    drift = differences(committed(options.output), files)
    if options.check:
        for line in drift:
            print(line, file=sys.stderr)
        verdict = f"{len(drift)} files drifted from protos/: run `make protos`" if drift else "no drift"
        print(f"generated code: {verdict}")
        return 1 if drift else 0
    write(options.output, files)
    print(f"generated code: {len(files)} files in {options.output}, {len(drift)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
