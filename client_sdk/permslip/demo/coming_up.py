"""First acts: a federation comes up, and the schools load their records."""

from __future__ import annotations

import time
from typing import Any, Final

from permslip.demo.central import source_needles
from permslip.demo.children import Finished, in_parallel
from permslip.demo.families import roster_of
from permslip.demo.federation import NodeParty, ProviderParty
from permslip.demo.sources import Site, Sources, generated_sources, given_sources
from permslip.demo.stage import Stage

__all__ = ["bring_up", "connect", "load_records"]

_PROVIDERS: Final = (
    ("tutor", "Bright Lane Tutoring"),
    ("therapist", "Quiet Water Speech Therapy"),
    ("summer", "Camp Juniper Summer Programme"),
)
# Exit codes of an import: every row was read, or some were rejected.
_IMPORTED: Final = (0, 3)


def bring_up(stage: Stage) -> Sources:
    """A broker, four nodes, three providers; the operator admits them all."""
    narrator, federation = stage.narrator, stage.federation
    narrator.act("A federation comes up")
    narrator.say(
        "In the centre runs one broker. It holds keys, random handles, codes, dates of grants and ciphertext, and "
        "nothing about any learner. Each school and the learning platform runs a node of its own; nodes dial out, "
        "so no school opens a port."
    )
    sources = _sources(stage)
    broker = federation.start_broker()
    narrator.done(f"broker listens on {federation.address} (process {broker.pid})")
    with narrator.progress("making and admitting parties", len(sources.sites) + len(_PROVIDERS)) as advance:

        def make_node(site: Site) -> NodeParty:
            node = federation.make_node(site)
            federation.admit(node.root, "node", site.name, node.cert)
            advance()
            return node

        def make_provider(key: str, name: str) -> ProviderParty:
            provider = federation.make_provider(key, name)
            advance()
            return provider

        stage.nodes = in_parallel(make_node, sources.sites)
        made = in_parallel(lambda each: make_provider(*each), _PROVIDERS)
        stage.providers = {key: provider for (key, _), provider in zip(_PROVIDERS, made, strict=True)}
    narrator.table(
        ("admitted by the operator", "as", "root key"),
        [
            *((each.site.name, "platform" if each.site.is_platform else "school", each.root) for each in stage.nodes),
            *((each.name, "provider", each.root) for each in stage.providers.values()),
        ],
    )
    stage.report.nodes = len(stage.nodes)
    return sources


def load_records(stage: Stage, sources: Sources) -> list[tuple[NodeParty, list[dict[str, Any]]]]:
    """Every node imports its own records; returns each node's roster."""
    narrator, report = stage.narrator, stage.report
    narrator.act("The schools load their records")
    narrator.say(f"From {sources.description}. Each node reads its own learners' rows with the real importers.")
    began = time.monotonic()
    with narrator.progress("importing", sum(len(node.site.imports) for node in stage.nodes)) as advance:

        def load(node: NodeParty) -> list[Finished]:
            done = []
            for arguments in node.site.imports:
                command = ("node", "import", *arguments, "--config", node.config, "--json")
                done.append(stage.children.run(*command, accept=_IMPORTED))
                advance()
            return done

        finished = in_parallel(load, stage.nodes)
    report.import_seconds = round(time.monotonic() - began, 3)
    report.import_peak_mb = round(max(each.peak_mb for done in finished for each in done), 1)
    rejected = sum(each.document()["rejected"] for done in finished for each in done)
    reports = in_parallel(lambda node: stage.federation.run("node", "report", "--config", node.config), stage.nodes)
    held = {node.site.key: each for node, each in zip(stage.nodes, reports, strict=True)}
    lists = in_parallel(lambda node: roster_of(stage.federation, node), stage.nodes)
    rosters = list(zip(stage.nodes, lists, strict=True))
    _count(stage, held, rosters)
    narrator.table(
        ("node", "learners", "guardian links", "records", "sections"),
        [
            (each["name"], each["learners"], each["guardian_links"], sum(sections.values()), len(sections))
            for each, sections in ((each, each["sections"]) for each in held.values())
        ],
        numbers=(1, 2, 3, 4),
    )  # fmt: skip
    narrator.done(
        f"{sum(sum(each.values()) for each in report.records.values()):,} records in {report.import_seconds:.1f} s; "
        f"no importer needed more than {report.import_peak_mb:.0f} MB; {rejected} rows could not be read"
    )
    stage.expect(all(each["sections"] for each in held.values()), "every node holds records")
    stage.search.add(source_needles(sources.files))
    for _, lines in rosters:
        for line in lines:
            stage.search.add((line["learner_name"], line["person_name"]))
    stage.search.learn_what_software_holds()
    return rosters


def connect(stage: Stage) -> None:
    """The nodes attach to the broker."""
    for node in stage.nodes:
        stage.federation.start_node(node)
    stage.narrator.done(f"{len(stage.nodes)} nodes attached; each asks for a fresh lease every second")


def _sources(stage: Stage) -> Sources:
    options = stage.options
    if options.data is not None:
        return given_sources(options.data)
    return generated_sources(stage.children, stage.folder / "district", learners=options.learners, seed=options.seed)


def _count(
    stage: Stage, held: dict[str, dict[str, Any]], rosters: list[tuple[NodeParty, list[dict[str, Any]]]]
) -> None:
    """Learners of the platform who go to one of the schools are counted there, and so are their guardians."""
    report = stage.report
    report.records = {each["name"]: each["sections"] for each in held.values()}
    at_schools: set[str] = set()
    for node, lines in rosters:
        known = {line["learner"] for line in lines}
        learners = held[node.site.key]["learners"]
        if node.site.is_platform:
            report.learners += learners - len(known & at_schools)
        else:
            at_schools |= known
            report.learners += learners
            report.guardian_links += held[node.site.key]["guardian_links"]
