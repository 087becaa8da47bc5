"""What this node has witnessed, for its operator.

Example::

    for line in witnessed_lines(read_witnessed(engine)):
        print(line)
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from permslip._pb.permslip.v1 import ledger_pb2
from permslip.keys import did_text
from permslip_node.witness_store import WitnessStore

__all__ = ["read_witnessed", "witnessed_lines"]


def read_witnessed(engine: Engine) -> list[dict[str, Any]]:
    """For each broker the last checkpoint that was cosigned, and the last one that was refused, as JSON can hold it."""
    document: list[dict[str, Any]] = []
    for memory in WitnessStore(engine).memories():
        line: dict[str, Any] = {"broker": did_text(memory.broker), "cosigned": None, "alerts": memory.alerts}
        if memory.last is not None:
            checkpoint = memory.last.checkpoint
            line["cosigned"] = {
                "origin": checkpoint.origin,
                "size": checkpoint.size,
                "root": checkpoint.root.hex(),
                "at": memory.last.cosigned_at,
            }
        if memory.last_alert is not None:
            alert = memory.last_alert
            line["last_alert"] = {
                "fault": ledger_pb2.WitnessFault.Name(alert.fault).removeprefix("WITNESS_FAULT_"),
                "at": alert.at,
                "position": alert.position,
                "detail": alert.detail,
            }
        document.append(line)
    return document


def witnessed_lines(document: list[dict[str, Any]]) -> list[str]:
    """The same for people; nothing where no broker's ledger was ever witnessed."""
    lines = ["", "  witness of the ledgers of"] if document else []
    for each in document:
        lines.append(f"    {each['broker']}")
        if (cosigned := each["cosigned"]) is not None:
            lines.append(f"      last cosigned   {cosigned['size']:,} entries, {_day(cosigned['at'])}")
        if each["alerts"]:
            alert = each["last_alert"]
            lines += [
                f"      REFUSED         {each['alerts']} checkpoints; the last: {alert['fault']}, {_day(alert['at'])}",
                f"                      {alert['detail']}",
                "                      Keep this database, and tell the federation's operator and its auditors.",
            ]
    return lines


def _day(millis: int) -> str:
    return datetime.fromtimestamp(millis / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
