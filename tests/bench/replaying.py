"""Replay: a broker's ledger decided again, against the signature checks alone of what it names.

The floor is PyNaCl's ``crypto_sign_open`` over the signed bytes of every statement and query of the ledger, once each,
with nothing read or parsed. Replay reads leaves and envelopes from the bundle, decodes strictly, verifies, folds the
facts, gathers and decides, and compares every verdict.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from nacl.bindings import crypto_sign_open

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.auditing.bundle import Bundle
from permslip.auditing.reconciling import reconcile
from permslip.auditing.replaying import replay
from permslip.dsse import pae
from tests.auditing.ledgers import Audited
from tests.bench.figures import Figure, Report
from tests.bench.scale import Scale

__all__ = ["measure"]

_SECTIONS = (("transcript.grades",), ("transcript",), ("personal.health", "transcript.courses"))


async def measure(report: Report, scale: Scale, folder: Path) -> None:
    """Seconds of a replay, and of the signature checks in it."""
    alone = _ledger(scale.decisions, served=False)
    with alone.bundle(folder / "broker.db", keepers=[alone.broker]) as bundle:
        signed = _signed(bundle)
        seconds = _in_turns(
            {"checks": lambda: _check(signed), "replay": lambda: _replay(bundle, alone)}, rounds=scale.rounds
        )
    report.add(
        Figure(
            "audit.replay",
            1_000 * seconds["replay"],
            "ms",
            baseline=1_000 * seconds["checks"],
            against="the signature checks alone",
            at_most=2.5,
            note=f"{scale.decisions} decisions, {len(signed)} signatures",
        )
    )
    both = _ledger(max(1, scale.decisions // 4), served=True)
    with both.bundle(folder / "both.db") as bundle:
        entries = int(bundle.db.execute("SELECT count(*) FROM entry").fetchone()[0])
        times = _in_turns(
            {"replay": lambda: _replay(bundle, both), "reconcile": lambda: _reconcile(bundle, both)}, rounds=1
        )
    report.add(
        Figure("audit.replay.both-sides", entries / times["replay"], "entries/s", note="broker and node, one bundle"),
        Figure("audit.reconcile", entries / times["reconcile"], "entries/s", note="broker and node, one bundle"),
    )


def _ledger(decisions: int, *, served: bool) -> Audited:
    """A broker's ledger with so many decisions, of which one in eight is a refusal."""
    random, fed = Random(1), Audited()
    school, mother = fed.node("school"), fed.person("mother")
    providers = [fed.provider(f"provider {number}") for number in range(8)]
    grants = []
    for number in range(max(1, decisions // 100)):
        provider = providers[number % len(providers)]
        grants.append((provider, fed.consent(mother, school, provider, handle=number.to_bytes(16, "big"))))
    if not served:
        # The broker's entries alone: every answer ends as not reached.
        fed.offline.add(school.id)
    for _ in range(decisions):
        provider, grant = random.choice(grants)
        asking = provider if random.random() < 7 / 8 else random.choice(providers)
        fed.access(asking, grant, random.choice(_SECTIONS))
    return fed


def _signed(bundle: Bundle) -> list[tuple[str, bytes, bytes, bytes]]:
    """Payload type, payload, signature and key of every statement."""
    found = []
    for (raw,) in bundle.db.execute("SELECT envelope FROM statement"):
        envelope = pb.Envelope.FromString(raw)
        found += [(envelope.payload_type, envelope.payload, each.signature, each.key) for each in envelope.signatures]
    return found


def _check(signed: list[tuple[str, bytes, bytes, bytes]]) -> None:
    for payload_type, payload, signature, key in signed:
        crypto_sign_open(signature + pae(payload_type, payload), key)


def _replay(bundle: Bundle, fed: Audited) -> None:
    result = replay(bundle, fed.trust)
    if result.findings:
        raise AssertionError(f"an honest ledger gave findings: {result.findings}")


def _reconcile(bundle: Bundle, fed: Audited) -> None:
    result = reconcile(bundle, fed.trust)
    if result.findings:
        raise AssertionError(f"honest ledgers gave findings: {result.findings}")


def _in_turns(candidates: dict[str, Callable[[], None]], *, rounds: int) -> dict[str, float]:
    """Processor seconds of each, the least of turns that alternate: neither waits for anything, and what else the
    machine does only adds to both."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, work in candidates.items():
            # What the histories were made of stays: nobody looks through it for garbage while something is measured.
            gc.collect()
            gc.freeze()
            started = time.process_time()
            work()
            seconds[name].append(time.process_time() - started)
    return {name: min(each) for name, each in seconds.items()}
