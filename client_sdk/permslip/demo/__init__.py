"""The demo: a whole federation on one machine, told as it happens (``permslip demo``)."""

from __future__ import annotations
