"""A watch: what is wrong is told in the round in which it came, once; everything else is silent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from permslip.auditing.bundle import Bundle
from permslip.auditing.codes import Code
from permslip.auditing.replaying import replay
from permslip.auditing.stopping import Stop
from permslip.auditing.verifying import verify
from permslip.auditing.watching import Watch
from permslip.errors import ConfigurationError, KeyRejectedError, PermslipError, SignatureError, UnavailableError
from permslip.reasons import Reason
from tests.auditing.growing import GrowingFeed, empty_bundle, watched
from tests.auditing.ledgers import Audited
from tests.auditing.report_bundles import some_id

GONE = UnavailableError("The node is not connected.")


class Scene:
    """A school, a tutor, a mother, her consent; a bundle to watch them with."""

    def __init__(self, path: Path) -> None:
        self.fed = Audited()
        self.school, self.tutor = self.fed.node("school"), self.fed.provider("tutor")
        self.mother = self.fed.person("mother")
        self.grant = self.fed.consent(self.mother, self.school, self.tutor)
        self.bundle = empty_bundle(self.fed, path)
        self.stop = Stop()

    def feed(self, *happens: Callable[[], Any]) -> GrowingFeed:
        return GrowingFeed(self.fed, self.bundle, self.stop, happens)

    def access(self) -> None:
        self.fed.access(self.tutor, self.grant)

    def nothing(self) -> None:
        """Nobody does anything."""

    def lone_grant(self) -> None:
        """A grant that no school has endorsed: only the broker's ledger grows."""
        self.fed.record(self.fed.grant(self.mother, self.school, self.tutor))

    def wrong(self) -> None:
        """The broker logs a refusal where it had to allow."""
        self.access()
        body = self.fed.broker.find("access_decided", -1).body
        body.reason = Reason.GRANT_EXPIRED.wire

    def stored(self, step: str) -> list[str]:
        rows = self.bundle.db.execute("SELECT code FROM finding WHERE step = ? ORDER BY finding", (step,))
        return [code for (code,) in rows]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(tmp_path / "audit.db")
    yield made
    made.bundle.close()


def feed_loses(feed: GrowingFeed, root: bytes, error: PermslipError = GONE) -> Callable[[], None]:
    """From then on this ledger cannot be read."""
    return lambda: feed.fails.update({root: error})


# ------------------------------------------------------------------------------------------- what is told


async def test_honest_ledgers_that_grow_are_replayed_to_their_end_in_silence(scene: Scene) -> None:
    result, told = await watched(scene.feed(scene.access, scene.access, scene.access))

    assert told == []
    assert (result.word, result.exit_code) == ("clean", 0)
    assert result.counts["decisions"] == 6
    assert result.counts["entries"] == len(scene.fed.broker.entries) + len(scene.fed.keeper(scene.school).entries)


async def test_a_bad_entry_is_told_before_anything_else_is_asked(scene: Scene) -> None:
    feed = scene.feed(scene.access, scene.wrong, scene.access)
    asked_when_told: list[int] = []
    watch = Watch(
        feed,
        scene.bundle,
        scene.fed.trust,
        tell=lambda _alert: asked_when_told.append(len(feed.fetched)),
        stop=scene.stop,
        every=0.0,
    )

    result = await watch.run()

    assert asked_when_told[0] == 3  # the first round, the access, the wrong one
    assert result.exit_code == 1


async def test_an_alert_names_code_ledger_and_entry(scene: Scene) -> None:
    result, (alert, *_) = await watched(scene.feed(scene.wrong))

    position = scene.fed.broker.position_of(scene.fed.broker.find("access_decided", -1))
    assert (alert.code, alert.severity, alert.position) == (Code.VERDICT_DIFFERS, "fault", position)
    assert alert.ledger == scene.fed.broker.party.name
    assert f"FAULT VERDICT_DIFFERS entry {position} of broker: " in alert.line
    assert result.findings[Code.VERDICT_DIFFERS] == 1


async def test_what_was_told_is_not_told_again_and_is_in_the_bundle(scene: Scene) -> None:
    _, told = await watched(scene.feed(scene.wrong, scene.access, scene.access))

    codes = [alert.code for alert in told]
    assert codes.count(Code.VERDICT_DIFFERS) == 1
    assert scene.stored("replay").count(Code.VERDICT_DIFFERS) == 1


async def test_the_watch_and_a_replay_afterwards_find_the_same(scene: Scene) -> None:
    await watched(scene.feed(scene.access, scene.wrong, scene.access))
    during = scene.stored("replay")

    replay(scene.bundle, scene.fed.trust)

    assert sorted(scene.stored("replay")) == sorted(during)


async def test_a_hole_in_a_slices_chain_is_told(scene: Scene) -> None:
    feed = scene.feed(scene.access)
    await watched(feed)
    scene.access()
    newest = scene.fed.broker.entries[-1]
    honest = scene.fed.broker.leaves
    scene.fed.broker.entries.remove(newest)
    cut = honest()
    scene.fed.broker.entries.append(newest)
    scene.fed.broker.entries.insert(-1, newest)
    leaves = honest()
    scene.fed.broker.leaves = lambda: [*cut, leaves[-1]]  # type: ignore[method-assign]  # a broker that leaves one out

    _, told = await watched(feed)

    assert Code.SLICE_CHAIN in [alert.code for alert in told]
    assert scene.stored("watch") == [Code.SLICE_CHAIN]


async def test_what_fetching_finds_is_told_once_and_outlives_the_next_visit(scene: Scene) -> None:
    feed = scene.feed(scene.access, scene.access)
    feed.finds.append((Code.LEAF_HASH, "its bytes have another hash.", "fault"))
    feed.happens += [feed.finds.clear, scene.access]

    result, told = await watched(feed)

    assert [alert.code for alert in told] == [Code.LEAF_HASH]
    assert scene.stored("watch") == [Code.LEAF_HASH]
    assert result.exit_code == 1


async def test_a_fork_met_by_the_watch_is_a_fault_of_verify_too(scene: Scene) -> None:
    feed = scene.feed(scene.access)
    feed.happens += [feed.finds.clear, scene.access]
    feed.finds.append((Code.CHECKPOINT_FORK, "two histories.", "fault"))
    await watched(feed)

    verify(scene.bundle, scene.fed.trust)

    assert Code.CHECKPOINT_FORK in scene.stored("verify")


async def test_notes_are_kept_and_not_told(scene: Scene) -> None:
    feed = scene.feed(scene.access)
    feed.finds.append((Code.LEAF_HIDDEN, "a hash alone.", "note"))

    result, told = await watched(feed)

    assert told == []
    assert scene.stored("watch") == [Code.LEAF_HIDDEN]
    assert result.exit_code == 0


# ------------------------------------------------------------------------------------------- what is asked


async def test_nothing_is_fetched_where_nothing_changed(scene: Scene) -> None:
    feed = scene.feed(*[scene.nothing] * 5)

    await watched(feed)

    assert feed.fetched == [None]


async def test_only_what_grew_is_fetched(scene: Scene) -> None:
    feed = scene.feed(scene.lone_grant, scene.nothing)

    await watched(feed)

    assert feed.fetched == [None, [scene.fed.broker.party.id]]


async def test_a_ledger_of_which_no_news_are_wanted_is_not_asked_for(scene: Scene) -> None:
    feed = scene.feed(scene.access, scene.nothing)
    feed.ignored.add(scene.school.id)

    await watched(feed)

    assert ("head", scene.school.id) not in feed.asked


async def test_another_root_at_the_same_size_is_fetched_once(scene: Scene) -> None:
    broker, feed = scene.fed.broker.party.id, scene.feed()
    feed.happens += [lambda: feed.forked.update({broker: bytes(32)}), *[scene.nothing] * 4]

    await watched(feed)

    assert feed.fetched == [None, [broker]]


async def test_a_checkpoint_that_does_not_hold_is_for_fetching_to_tell(scene: Scene) -> None:
    school, feed = scene.school.id, scene.feed()
    feed.happens += [lambda: feed.fails.update({school: SignatureError("It does not hold.")}), scene.nothing]

    await watched(feed)

    assert [school] in feed.fetched


async def test_when_somebody_is_admitted_all_ledgers_are_sought(scene: Scene) -> None:
    feed = scene.feed(lambda: scene.fed.node("platform"), scene.nothing, scene.access)

    result, told = await watched(feed)

    assert feed.fetched[:3] == [None, [scene.fed.broker.party.id, scene.school.id], None]
    assert {each.name for each in scene.bundle.ledgers()} == {"broker", "school", "platform"}
    assert (result.exit_code, told) == (0, [])


async def test_visits_that_saw_the_same_leave_the_first_and_the_last_checkpoint(scene: Scene) -> None:
    school, feed = scene.school.id, scene.feed()
    feed.happens += [lambda: feed.forked.update({school: some_id(len(feed.asked))})] * 6

    await watched(feed)

    (visits,) = scene.bundle.db.execute("SELECT count(*) FROM checkpoint WHERE ledger = 1").fetchone()
    assert len(feed.fetched) == 7
    assert visits == 2


# --------------------------------------------------------------------------------------- what is not reached


async def test_a_ledger_out_of_reach_is_told_once_and_once_more_when_it_is_back(scene: Scene) -> None:
    feed = scene.feed()
    feed.happens += [feed_loses(feed, scene.school.id), scene.nothing, scene.nothing, feed.fails.clear, scene.access]

    result, told = await watched(feed)

    assert [alert.code for alert in told] == [Code.LEDGER_UNREACHED, "LEDGER_REACHED"]
    assert {alert.ledger for alert in told} == {"school"}
    assert result.exit_code == 0


async def test_a_watch_that_ends_with_a_ledger_out_of_reach_could_not_check(scene: Scene) -> None:
    feed = scene.feed()
    feed.happens += [feed_loses(feed, scene.school.id), scene.nothing]

    result, _ = await watched(feed)

    assert result.exit_code == 2
    assert "school" in result.unchecked


@pytest.mark.parametrize("error", [GONE, KeyRejectedError("has no certified key, or is suspended.")])
async def test_a_suspended_or_absent_school_does_not_end_the_watch(scene: Scene, error: PermslipError) -> None:
    feed = scene.feed()
    feed.happens += [feed_loses(feed, scene.school.id, error), scene.wrong]

    result, told = await watched(feed)

    assert Code.VERDICT_DIFFERS in [alert.code for alert in told]
    assert result.exit_code == 1


async def test_a_broker_out_of_reach_at_first_is_asked_again(scene: Scene) -> None:
    feed = scene.feed(scene.nothing)
    feed.happens += [feed.fails.clear, scene.access]
    feed.fails[scene.fed.broker.party.id] = GONE

    result, told = await watched(feed)

    assert feed.fetched[:3] == [None, None, None]
    assert [alert.code for alert in told] == [Code.LEDGER_UNREACHED, "LEDGER_REACHED"]
    assert result.exit_code == 0


async def test_what_came_while_the_broker_was_away_is_fetched_afterwards(scene: Scene) -> None:
    feed = scene.feed()
    feed.happens += [feed_loses(feed, scene.fed.broker.party.id), scene.wrong, feed.fails.clear, scene.nothing]

    _, told = await watched(feed)

    assert Code.VERDICT_DIFFERS in [alert.code for alert in told]


# ---------------------------------------------------------------------------------------------- its end


async def test_once_is_one_round(scene: Scene) -> None:
    feed = scene.feed(scene.access)

    result, _ = await watched(feed, once=True)

    assert feed.asked == [("fetch", None)]
    assert result.exit_code == 0


async def test_once_with_a_fault_says_so(scene: Scene) -> None:
    scene.wrong()

    result, _ = await watched(scene.feed(), once=True)

    assert result.exit_code == 1


async def test_until_finding_ends_with_the_first_fault(scene: Scene) -> None:
    feed = scene.feed(scene.access, scene.wrong, scene.access, scene.access)

    result, _ = await watched(feed, until_finding=True)

    assert len(feed.happens) == 2
    assert result.exit_code == 1
    assert not scene.stop.asked


async def test_a_watch_that_is_stopped_while_it_fetches_gives_the_fetch_up(scene: Scene) -> None:
    feed = scene.feed()
    feed.hangs = True

    result, _ = await watched(feed)

    assert (result.exit_code, result.unchecked) == (2, "The watch ended before its first round did.")


async def test_a_watch_that_is_stopped_within_a_replay_does_not_call_it_clean(scene: Scene) -> None:
    scene.access()
    watch = Watch(
        scene.feed(),
        scene.bundle,
        scene.fed.trust,
        tell=lambda _alert: None,
        stop=scene.stop,
        progress=lambda *_: scene.stop.ask(),
    )

    result = await watch.run()

    assert result.exit_code == 2
    assert scene.bundle.db.execute("SELECT result FROM run WHERE step = 'replay'").fetchone() == ("unchecked",)


async def test_a_watch_goes_on_where_an_earlier_one_ended(scene: Scene, tmp_path: Path) -> None:
    await watched(scene.feed(scene.access))
    scene.stop = Stop()

    result, told = await watched(scene.feed(scene.access, scene.wrong))

    assert Code.VERDICT_DIFFERS in [alert.code for alert in told]
    assert result.counts["entries"] == sum(each.fetched for each in scene.bundle.ledgers())


async def test_the_bundle_of_another_federation_is_refused(scene: Scene, tmp_path: Path) -> None:
    scene.bundle.set_meta("federation", "other.example")

    with pytest.raises(ConfigurationError):
        await watched(scene.feed())


async def test_the_bundle_can_be_opened_and_verified_afterwards(scene: Scene) -> None:
    await watched(scene.feed(scene.access, scene.access))
    path = scene.bundle.path
    scene.bundle.close()

    with Bundle.open(path) as bundle:
        assert replay(bundle, scene.fed.trust).exit_code == 0
