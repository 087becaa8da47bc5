"""Runs ``permslip`` commands in one interpreter, as one after the other in a shell, and prints what each said.

Each line of standard input is a list of commands, and is answered by a line with a list of what they said. The process
goes on until its input ends: most of a command's time is that of loading everything, which it does once.

Example: the line ``[["audit", "fetch", "audit.db", "--json"]]`` is answered by ``[[0, "{…}", ""]]``.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO


def run(arguments: list[str]) -> tuple[int, str, str]:
    """One command: exit code, standard output, standard error."""
    from permslip.cli import main

    output, errors = StringIO(), StringIO()
    sys.argv = ["permslip", *arguments]
    code = 0
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return code, output.getvalue(), errors.getvalue()


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for line in sys.stdin:
        sys.stdout.write(json.dumps([run(each) for each in json.loads(line)]) + "\n")
        sys.stdout.flush()
