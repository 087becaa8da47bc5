"""A real broker and three real schools with sockets and databases, in this process, and everybody's clients of them.

Mia is known at all three schools; her mother is guardian at each, her father at the last two. ``Cedar`` asks for every
guardian's signature.

Example::

    async with ThreeSchools.running(tmp_path) as schools:
        async with schools.mother() as mother, schools.tutor() as tutor:
            await schools.link_all(mother)
            await mother.grant(schools.tutor_root, …)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from permslip.armor import write_statements
from permslip.client.consenting import GivenTerms
from permslip.client.guarding import AsyncGuardianClient
from permslip.client.operating import AsyncOperatorClient
from permslip.client.providing import AsyncClient
from permslip.client.timeouts import Timeout
from permslip.keyfile import PrincipalKind, StoredKeys, write_key_file
from permslip.wallet import Wallet
from permslip_node.app import RunningNode
from tests.e2e.broker.small_federation import FEDERATION, SmallFederation
from tests.federation.principals import admit
from tests.federation.school import School

TIMEOUT = Timeout(connect=20, call=20, answer=20)
CHILD = "604822"
TERMS: GivenTerms = {
    "sections": ["transcript", "personal.attendance"],
    "purpose": "tutoring",
    "purpose_text": "Help with reading",
    "until": "2027-06-30",
    "reference": "learner-17",
    "relationship": "Mother",
}


class ThreeSchools:
    """Made by :meth:`running`."""

    def __init__(self, folder: Path, federation: SmallFederation) -> None:
        self.folder, self.federation = folder, federation
        self.schools: dict[str, School] = {}
        self.nodes: dict[str, RunningNode] = {}
        self._running: dict[str, AsyncExitStack] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, folder: Path) -> AsyncIterator[ThreeSchools]:
        """The broker up, the providers admitted; schools come up as they are needed."""
        federation = SmallFederation(folder)
        async with federation.running():
            await federation.admit_all()
            made = cls(folder, federation)
            try:
                yield made
            finally:
                for name in list(made._running):
                    await made.stop(name)

    async def school(self, name: str) -> School:
        """One of them; made, admitted and started when it is needed first."""
        if name not in self.schools:
            await self._make(name)
        return self.schools[name]

    async def _make(self, name: str) -> None:
        federation = self.federation
        made = School.made(
            self.folder / name,
            federation.operator,
            [(federation.address, federation.root)],
            federation=FEDERATION,
            now=federation.now,
            quorum="all" if name == "Cedar" else "any",
        )
        school = replace(
            made, organization=replace(made.organization, name=name), settings=replace(made.settings, name=name)
        )
        school.learner(CHILD, grades=5, attendance=7, guardians=["P1"] if name == "Lincoln" else ["P1", "P2"])
        await federation.admit(
            admit(federation.operator, school.organization, now=federation.now()), school.organization.cert
        )
        self.schools[name] = school
        await self.start(name)

    async def start(self, name: str) -> None:
        """Start a school's node, and wait until it may answer."""
        stack = AsyncExitStack()
        self.nodes[name] = await stack.enter_async_context(self.schools[name].running())
        self._running[name] = stack
        await self.nodes[name].fit.wait()

    async def stop(self, name: str) -> None:
        """Take a school off line."""
        await self._running.pop(name).aclose()

    @property
    def nodes_up(self) -> set[str]:
        """Schools that are on line."""
        return set(self._running)

    # ----------------------------------------------------------------------------------------- clients

    def trust(self) -> dict[str, Any]:
        """What every client is told."""
        return {
            "broker": self.federation.address,
            "broker_root": self.federation.broker_keys.root_key.public.did,
            "federation": FEDERATION,
            "operator": self.federation.operator.key.public.did,
        }

    @property
    def tutor_root(self) -> bytes:
        """Whom the mother trusts."""
        return self.federation.tutor.root

    def tutor(self, **changes: Any) -> AsyncClient:
        """The tutor's client."""
        tutor = self.federation.tutor
        keys = StoredKeys(PrincipalKind.PROVIDER, tutor.key, tutor.sealing)
        return AsyncClient(**{**self.trust(), "keys": keys, "cert": tutor.cert.envelope, "timeout": TIMEOUT, **changes})

    def guardian(self, name: str, **changes: Any) -> AsyncGuardianClient:
        """A guardian's client with a wallet of her own."""
        folder = self.folder / f"wallet of {name}"
        wallet = Wallet.open(folder) if folder.exists() else Wallet.create(folder)
        return AsyncGuardianClient(**{**self.trust(), "wallet": wallet, "timeout": TIMEOUT, **changes})

    def operator(self) -> AsyncOperatorClient:
        """The operator's client."""
        trust = self.trust()
        del trust["operator"]
        keys = StoredKeys(PrincipalKind.OPERATOR, self.federation.operator.key)
        return AsyncOperatorClient(**trust, keys=keys, timeout=TIMEOUT)

    async def link(self, guardian: AsyncGuardianClient, *names: str, person: str = "P1") -> None:
        """Link a guardian by slips of these schools."""
        for name in names:
            school = await self.school(name)
            await guardian.link(school.slip(CHILD, person).slip.text(), learner="Mia")

    def settings_file(self) -> Path:
        """A ``permslip.toml`` with the tutor's key and the mother's wallet, for commands."""
        tutor, folder = self.federation.tutor, self.folder
        keys = {
            "tutor.key": StoredKeys(PrincipalKind.PROVIDER, tutor.key, tutor.sealing),
            "operator.key": StoredKeys(PrincipalKind.OPERATOR, self.federation.operator.key),
        }
        for name, stored in keys.items():
            write_key_file(folder / name, stored, overwrite=True)
        write_statements(folder / "tutor.cert", [tutor.cert.envelope])
        values = {**self.trust(), "key": "tutor.key", "cert": "tutor.cert", "wallet": "family"}
        path = folder / "permslip.toml"
        path.write_text("".join(f'{key} = "{value}"\n' for key, value in values.items()), encoding="utf-8")
        return path
