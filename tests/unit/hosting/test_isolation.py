"""The client library works without the servers' dependencies."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVERS_OWN = ("permslip.hosting", "sqlalchemy", "alembic", "prometheus_client", "grpc_health", "grpc_reflection")

PROBE = """
import importlib, sys
for name in sys.argv[1].split(","):
    importlib.import_module(name)
print(*sorted(sys.modules))
"""


@pytest.mark.parametrize("module", ["permslip", "permslip.client", "permslip.cli", "permslip.errors"])
def test_client_library_imports_nothing_of_the_servers(module: str) -> None:
    result = subprocess.run([sys.executable, "-c", PROBE, module], capture_output=True, text=True, check=True)

    imported = result.stdout.split()
    assert module in imported
    assert [name for name in imported if name.startswith(SERVERS_OWN)] == []
