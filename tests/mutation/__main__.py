"""Mutation tests of the trust core: would the tests notice if a line of it were wrong?

Stages the package and the tests that prove it below ``build/mutation``, lets mutmut change the modules of
:data:`SUBJECTS` one expression at a time, and reports how many changes made a test fail.

Rules:

* A mutant counts as killed when a test fails or runs out of time; one that no test reaches has survived.
* A mutant that differs from the original in nothing but the wording of an exception is not counted: what a
  message says is read by people, and a test that repeats it word by word proves nothing.
* Each subject must reach :data:`REQUIRED`; the figures are written to ``build/mutation.json``.

Example::

    $ python -m tests.mutation                 # all subjects
    $ python -m tests.mutation merkle          # one of them
"""

from __future__ import annotations

import argparse
import ast
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGE = ROOT / "build" / "mutation"
REQUIRED = 0.90

# module below client_sdk/permslip → the tests that prove it, as patterns below tests/
SUBJECTS = {
    "bounds": ["**/test_*bounds*.py", "**/test_*statements*.py"],
    "decision": ["**/test_*decision*.py", "scenarios/test_*.py"],
    "dsse": ["**/test_*dsse*.py", "**/test_*statements*.py"],
    "grants": ["**/test_*grants*.py"],
    "merkle": ["**/test_*merkle*.py"],
    "statements": ["**/test_*statements*.py"],
}

KILLED = {1, 3, 24, 36, -24, 152, 255}  # failed, internal error, and the several ways to run out of time
MARK = "__mutmut_"


@dataclass
class Score:
    """What became of one module's mutants."""

    killed: int = 0
    survivors: list[str] = field(default_factory=list)
    wording: int = 0

    @property
    def rate(self) -> float:
        """Killed among those that count; 1.0 where nothing counts."""
        counted = self.killed + len(self.survivors)
        return self.killed / counted if counted else 1.0


class WithoutWording(ast.NodeTransformer):
    """Blanks the message and the remedy of every exception that is raised."""

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        """Keeps the exception's class and its other arguments."""
        if isinstance(node.exc, ast.Call) and node.exc.args:
            node.exc.args[0] = ast.Constant("")
            node.exc.keywords = [each for each in node.exc.keywords if each.arg != "remedy"]
        return node


def without_wording(function: ast.AST) -> str:
    """The function's tree, name and wording aside, as text that can be compared."""
    tree = WithoutWording().visit(ast.parse(ast.unparse(function)).body[0])
    tree.name = ""
    return ast.dump(tree)


def tests_of(name: str) -> set[str]:
    """Paths, relative to the repository, of the test files that prove a module."""
    found = {path for pattern in SUBJECTS[name] for path in (ROOT / "tests").glob(pattern)}
    return {str(path.relative_to(ROOT)) for path in found}


def stage(subjects: list[str]) -> None:
    """Lays out a project of mutmut's own shape: ``src/permslip``, ``tests`` and a configuration."""
    shutil.rmtree(STAGE, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "client_sdk" / "permslip", STAGE / "src" / "permslip", ignore=ignore)
    shutil.copytree(ROOT / "tests", STAGE / "tests", ignore=ignore)
    shutil.copytree(ROOT / "protos", STAGE / "protos", ignore=ignore)
    mutated = json.dumps([f"src/permslip/{name}.py" for name in subjects])
    tests = json.dumps(sorted(set[str]().union(*map(tests_of, subjects))))
    configuration = f"""
[tool.mutmut]
source_paths = ["src"]
only_mutate = {mutated}
also_copy = ["protos"]
pytest_add_cli_args_test_selection = {tests}

[tool.pytest.ini_options]
pythonpath = ["."]
addopts = ["--import-mode=importlib", "-p", "no:cacheprovider"]
asyncio_mode = "auto"
markers = ["data: needs real data", "slow: takes long", "e2e: starts processes"]
"""
    (STAGE / "pyproject.toml").write_text(configuration, "utf-8")


def score(name: str) -> Score:
    """Reads what mutmut wrote down about one module."""
    mutated = STAGE / "mutants" / "src" / "permslip" / f"{name}.py"
    verdicts: dict[str, int | None] = json.loads(Path(f"{mutated}.meta").read_text("utf-8"))["exit_code_by_key"]
    functions = {
        node.name: node
        for node in ast.walk(ast.parse(mutated.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    result = Score()
    for key, exit_code in verdicts.items():
        mutant = key.rpartition(".")[2]
        original = mutant.partition(MARK)[0] + MARK + "orig"
        if without_wording(functions[mutant]) == without_wording(functions[original]):
            result.wording += 1
        elif exit_code in KILLED:
            result.killed += 1
        else:
            result.survivors.append(key)
    return result


def main() -> int:
    """Command line; exit code 0 when every subject reaches the required rate, 1 if not, 2 on failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Mutation tests.")
    parser.add_argument("subjects", nargs="*", help=f"of {', '.join(SUBJECTS)}; all when none is named")
    subjects = parser.parse_args().subjects or list(SUBJECTS)
    unknown = set(subjects) - SUBJECTS.keys()
    if unknown:
        parser.error(f"no such subject: {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    untested = [name for name in subjects if not tests_of(name)]
    if untested:
        parser.error(f"no tests match the patterns of {', '.join(untested)}")
    stage(subjects)
    if subprocess.run([sys.executable, "-m", "mutmut", "run"], cwd=STAGE, check=False).returncode != 0:
        print("mutmut could not run; do the tests pass?", file=sys.stderr)
        return 2
    scores = {name: score(name) for name in subjects}
    for name, each in scores.items():
        print(f"\n{name}: {each.rate:.1%} of {each.killed + len(each.survivors)} mutants killed", end="")
        print(f" ({each.wording} changed only an exception's wording)")
        for survivor in each.survivors:
            print(f"  survived: {survivor}")
    figures = {
        name: {
            "rate": round(each.rate, 4),
            "killed": each.killed,
            "survived": each.survivors,
            "wording": each.wording,
        }
        for name, each in scores.items()
    }
    (ROOT / "build" / "mutation.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    print("\nTo see one: cd build/mutation && ../../.venv/bin/mutmut show NAME")
    short = [name for name, each in scores.items() if each.rate < REQUIRED]
    if short:
        print(f"\nbelow {REQUIRED:.0%}: {', '.join(short)}", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
