"""A federation in which everything that must stay out of the centre is a canary, played behind a recording proxy.

Whatever a party may do is done once: schools load and stop and come back, parents link (one with a wrong code), grant,
read, look at accesses and revoke, providers assemble profiles and stream records, and what nobody should get is
refused. Between every party and the broker stands the proxy.

A canary date could by chance be one that some library holds. Those that the broker's memory holds before anybody came
are left out; texts never are.

Example::

    with CanaryFederation(folder) as played:
        hits = list(search_memory(LeakSearch(played.secrets), played.broker.pid))
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from permslip.client.consenting import Consent
from permslip.demo.children import Child, Children
from permslip.demo.families import Family, choose_families, link_all, roster_of
from permslip.demo.federation import Federation, NodeParty, ProviderParty
from permslip.demo.leak_places import search_memory
from permslip.demo.leak_search import LeakSearch
from permslip.demo.raw_exchange import RawExchange
from permslip.demo.sources import Site
from permslip.demo.tampering import Held, attempts
from permslip.errors import RefusedError
from permslip.reasons import Reason
from permslip.slip import Slip, parse_slip
from permslip.wallet import Wallet
from tests.leaks.canary_district import canary, write_canary_district
from tests.leaks.recording_proxy import RecordingProxy

SCHOOL_NAME = "Heron Marsh High School"
TUTOR_NAME = "Larkspur Tutoring"
CAMP_NAME = "Camp Gooseberry"
# What the operator admitted by name is public: it must be found wherever the search looks.
PUBLIC = frozenset({SCHOOL_NAME, TUTOR_NAME, CAMP_NAME})

_TUTOR = ("personal.assessments", "personal.attendance", "transcript")
_CAMP = ("personal",)


class CanaryFederation:
    """The federation; on entering the block it is played, and then stays up.

    Args:
        folder: where everything is made.
        broker_program: what runs the broker; see :class:`permslip.demo.federation.Federation`.
        families: how many link.
    """

    def __init__(self, folder: Path, *, broker_program: tuple[str, ...] = ("permslip",), families: int = 3) -> None:
        self.folder = folder
        self._families = families
        self._open = ExitStack()
        self.canaries = write_canary_district(folder / "source")
        self.words: set[str] = set()
        self.left_out: set[str] = set()
        children = self._open.enter_context(Children(folder / "federation" / "logs"))
        self.federation = Federation(folder / "federation", children, broker_program=broker_program)
        self.nodes: list[NodeParty] = []
        self.families: list[Family] = []
        self.proxy: RecordingProxy

    @property
    def secrets(self) -> set[str]:
        """Everything that must not be found in the centre."""
        return (self.canaries.texts | self.words) - self.left_out

    @property
    def broker(self) -> Child:
        """The broker's process."""
        assert self.federation.broker is not None
        return self.federation.broker

    def __enter__(self) -> CanaryFederation:
        try:
            self._play()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _play(self) -> None:
        federation = self.federation
        federation.start_broker()
        dates = LeakSearch(self.canaries.dates.values())
        self.left_out = {hit.needle for hit in search_memory(dates, self.broker.pid)}
        self.proxy = self._open.enter_context(RecordingProxy(int(federation.address.rpartition(":")[2])))
        federation.address = f"127.0.0.1:{self.proxy.port}"
        federation.write_settings(federation.folder / "operator", key=federation.broker_folder / "operator.key")
        district = self.canaries.district
        edfi, lms = str(district.edfi), str(district.lms)
        sites = (
            Site("high", SCHOOL_NAME, ((edfi, "--school", district.schools[0].identifier),)),
            Site("platform", "Heron Marsh Platform", ((lms, "--format", "lms"), (edfi, "--format", "families"))),
        )
        for site in sites:
            node = federation.make_node(site)
            federation.admit(node.root, "node", site.name, node.cert)
            for arguments in site.imports:
                federation.run("node", "import", *arguments, "--config", node.config)
            federation.start_node(node)
            self.nodes.append(node)
        tutor = federation.make_provider("tutor", TUTOR_NAME)
        camp = federation.make_provider("camp", CAMP_NAME)
        rosters = [(node, roster_of(federation, node)) for node in self.nodes]
        self.families = choose_families(federation, rosters, count=self._families)
        asyncio.run(self._with_people(tutor, camp))

    async def _with_people(self, tutor: ProviderParty, camp: ProviderParty) -> None:
        federation = self.federation
        await self._fail_to_link(self.families[0])
        await link_all(federation, self.families, lambda: None)
        references: list[str] = []
        consents = [await self._grant(family, tutor, _TUTOR, references) for family in self.families]
        camps = [await self._grant(family, camp, _CAMP, []) for family in self.families]
        async with federation.client(tutor) as client:
            for reference in references:
                profile = await client.profile(reference)
                assert profile.entries
                assert [entry async for entry in client.records(reference, sections=_TUTOR)]
        await self._stop_and_start(tutor, references[0])
        async with federation.guardian(self.families[0].guardians[0].wallet) as guardian:
            assert (await guardian.profile()).entries
            assert (await guardian.accesses()).accesses
        await asyncio.to_thread(self._tamper, consents[1], camps[1], tutor, camp)
        for family, consent in zip(self.families, consents, strict=True):
            async with federation.guardian(family.guardians[-1].wallet) as guardian:
                async for state in guardian.revoke(consent):
                    if state.is_complete:
                        break

    async def _fail_to_link(self, family: Family) -> None:
        """A wrong code: what the node and the broker say of it must not tell whose slip it was."""
        wallet = Wallet.create(self.folder / "mistyped")
        slip = parse_slip(family.guardians[0].slips[0])
        wrong = Slip(slip.node, slip.selector, bytes(10))
        async with self.federation.guardian(wallet.folder) as guardian:
            try:
                await guardian.link(wrong.text())
            except RefusedError as error:
                assert error.code == Reason.LINK_REFUSED.name  # noqa: PT017 (a refusal is one step of the play)
            else:
                raise AssertionError("a wrong code was taken")

    async def _grant(
        self, family: Family, provider: ProviderParty, sections: tuple[str, ...], references: list[str]
    ) -> Consent:
        purpose_text, reference, relationship = canary(), canary(), canary()
        self.words |= {purpose_text, reference, relationship}
        references.append(reference)
        async with self.federation.guardian(family.guardians[0].wallet) as guardian:
            consent: Consent = await guardian.grant(
                provider.root,
                sections=sections,
                purpose="tutoring",
                purpose_text=f"{purpose_text}\nand more",
                until=datetime.now(UTC) + timedelta(days=30),
                reference=reference,
                relationship=relationship,
            )
        assert consent.is_active, consent.text
        return consent

    async def _stop_and_start(self, tutor: ProviderParty, reference: str) -> None:
        platform = self.nodes[-1]
        assert platform.process is not None
        platform.process.end()
        async with self.federation.client(tutor) as client:
            assert not (await client.profile(reference)).is_complete
        self.federation.start_node(platform)

    def _tamper(self, narrow: Consent, broad: Consent, tutor: ProviderParty, camp: ProviderParty) -> None:
        holder, other = self.federation.raw_caller(tutor), self.federation.raw_caller(camp)
        tried = attempts(
            Held(narrow.grants[0].signed, holder),
            Held(broad.grants[0].signed, other),
            not_granted="voice.goals",
            sensitive="personal.discipline",
        )
        for attempt in tried:
            with RawExchange(self.federation.address, attempt.caller) as exchange:
                if attempt.first:
                    exchange.ask(attempt.query)
                assert Reason(exchange.ask(attempt.query).refusal.code) is attempt.expected, attempt.name
