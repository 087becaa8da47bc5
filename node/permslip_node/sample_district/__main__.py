"""``python -m permslip_node.sample_district FOLDER``: ``permslip node sample-district --json`` without the rest.

Example::

    $ python -m permslip_node.sample_district build/district --learners 36 --seed 7
    {"edfi": "build/district/edfi", "lms": "build/district/lms", "schools": [{"identifier": "480901001", ...}], ...}
"""

from __future__ import annotations

import sys

from permslip_node.cli_sample import sample_district

if __name__ == "__main__":
    sample_district(["--json", *sys.argv[1:]])
