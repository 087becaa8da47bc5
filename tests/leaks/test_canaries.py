"""Nothing about a learner is in the centre: unique canaries, sought wherever a broker could keep or show one.

The search can fail: the same canaries are found on the nodes and in the wallets, what is public is found at the broker,
and a broker that leaks on purpose is caught in every place and form in which it leaks.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from permslip.demo.leak_places import Looked, search_folder, search_memory
from permslip.demo.leak_search import Hit, LeakSearch
from tests.leaks.canary_federation import PUBLIC, SCHOOL_NAME, CanaryFederation
from tests.leaks.leaking_broker import FILE_NAME

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="a process's memory is read through /proc"),
]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CanaryFederation]:
    """The honest federation, after its play, still up."""
    with CanaryFederation(tmp_path_factory.mktemp("canaries")) as federation:
        yield federation


@pytest.fixture(scope="module")
def secrets(played: CanaryFederation) -> LeakSearch:
    """The search for everything that must not be found."""
    assert len(played.secrets) > 400
    return LeakSearch(played.secrets)


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Iterator[CanaryFederation]:
    """The same play with a broker that leaks."""
    folder = tmp_path_factory.mktemp("leaking")
    key = folder / "federation" / "tutor" / "online.key"
    with (
        contextlib.chdir(repo_root),
        CanaryFederation(folder, broker_program=("tests.leaks.leaking_broker", str(key))) as federation,
    ):
        yield federation


def in_traffic(search: LeakSearch, federation: CanaryFederation) -> list[Hit]:
    """In what passed between any party and the broker: as raw bytes, and as streams and headers."""
    said = [*federation.proxy.recorded(), *federation.proxy.said()]
    assert sum(len(stretch) for _, stretch in said) > 1 << 20
    return [hit for name, stretch in said for hit in search.hits(stretch, name)]


def found(hits: list[Hit] | Iterator[Hit]) -> set[str]:
    """Which needles were found."""
    return {hit.needle for hit in hits}


# ------------------------------------------------------------------------------------------ the broker


def test_no_canary_is_on_the_brokers_disk(played: CanaryFederation, secrets: LeakSearch) -> None:
    looked = Looked()
    assert list(search_folder(secrets, played.federation.broker_folder, looked)) == []
    assert looked.files >= 5


def test_no_canary_is_in_the_brokers_log(played: CanaryFederation, secrets: LeakSearch) -> None:
    log = played.broker.log.read_bytes()
    assert log.count(b"\n") > 20
    assert list(secrets.hits(log, "log")) == []


def test_no_canary_is_in_the_brokers_memory(played: CanaryFederation, secrets: LeakSearch) -> None:
    looked = Looked()
    assert list(search_memory(secrets, played.broker.pid, looked)) == []
    assert looked.bytes > 10 << 20


def test_no_canary_passes_through_the_broker(played: CanaryFederation, secrets: LeakSearch) -> None:
    assert in_traffic(secrets, played) == []


# -------------------------------------------------------------------------------- the search can find


def test_what_is_public_is_found_wherever_the_search_looks(played: CanaryFederation) -> None:
    public = LeakSearch(PUBLIC)
    assert found(search_folder(public, played.federation.broker_folder)) == PUBLIC
    assert found(search_memory(public, played.broker.pid)) == PUBLIC
    assert found(in_traffic(public, played)) == PUBLIC


def test_the_canaries_are_found_on_the_nodes_disks(played: CanaryFederation, secrets: LeakSearch) -> None:
    # Not the wallets' words: a node opens a grant's private part to nobody.
    on_nodes = found(hit for node in played.nodes for hit in search_folder(secrets, node.folder))
    people = {line for node in played.nodes for line in _people(played, node.folder)}
    assert len(people) > 20
    assert people <= on_nodes


def test_the_canaries_are_found_in_a_nodes_memory(played: CanaryFederation, secrets: LeakSearch) -> None:
    process = played.nodes[0].process
    assert process is not None
    assert found(search_memory(secrets, process.pid))


def test_the_parents_words_are_found_in_their_wallets(played: CanaryFederation, secrets: LeakSearch) -> None:
    in_wallets = found(search_folder(secrets, played.federation.folder / "families"))
    assert len(played.words & in_wallets) >= len(played.words) // 2


def _people(played: CanaryFederation, folder: Path) -> Iterator[str]:
    """Canaries of the ids and names of a node's learners and guardians, as its operator sees them."""
    for line in played.federation.run("node", "families", "--config", str(folder / "node.toml")):
        yield from (line["learner"], line["person"])
        for name in (line["learner_name"], line["person_name"]):
            yield from name.split()


# ----------------------------------------------------------------------------- a broker that leaks


def test_a_broker_that_logs_what_it_should_not_know_is_caught(leaking: CanaryFederation) -> None:
    hits = list(LeakSearch(leaking.secrets).hits(leaking.broker.log.read_bytes(), "log"))
    assert {hit.form for hit in hits} >= {"UTF-8"}
    assert found(hits) <= leaking.words


def test_a_broker_that_stores_what_it_should_not_know_is_caught(leaking: CanaryFederation) -> None:
    hits = list(search_folder(LeakSearch(leaking.secrets), leaking.federation.broker_folder))
    assert {(hit.place, hit.form) for hit in hits} == {(FILE_NAME, "base64")}


def test_a_broker_that_remembers_a_digest_is_caught(leaking: CanaryFederation) -> None:
    hits = list(search_memory(LeakSearch(leaking.secrets), leaking.broker.pid))
    assert "SHA-256 in hexadecimal" in {hit.form for hit in hits}


def test_a_broker_that_tells_what_it_should_not_know_is_caught(leaking: CanaryFederation) -> None:
    hits = in_traffic(LeakSearch(leaking.secrets), leaking)
    assert {hit.form for hit in hits} == {"hexadecimal"}


def test_the_honest_play_is_the_leaking_one_but_for_the_broker(
    played: CanaryFederation, leaking: CanaryFederation
) -> None:
    assert [node.site.name for node in played.nodes] == [node.site.name for node in leaking.nodes]
    assert len(played.words) == len(leaking.words)
    assert SCHOOL_NAME in PUBLIC
