"""``python -m permslip`` is the ``permslip`` command, wherever its script was installed."""

from __future__ import annotations

from permslip.cli import main

if __name__ == "__main__":
    main(prog_name="permslip")
