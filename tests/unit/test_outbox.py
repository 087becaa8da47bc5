"""permslip.outbox: everything that is ready goes as one batch; what must not leave does not; memory is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from permslip.outbox import BATCH_FRAMES, Outbox


async def taken(outbox: Outbox[str]) -> list[list[str]]:
    """All batches until the outbox ends."""
    return [batch async for batch in outbox.batches()]


async def next_of(batches: AsyncIterator[list[str]]) -> list[str]:
    return await anext(batches)


def filled(*frames: tuple[str, int], high_water: int = 100, batch_bytes: int = 50) -> Outbox[str]:
    outbox: Outbox[str] = Outbox(high_water=high_water, batch_bytes=batch_bytes)
    for frame, size in frames:
        outbox.put(frame, size)
    return outbox


async def test_all_that_is_ready_goes_as_one_batch() -> None:
    outbox = filled(("a", 1), ("b", 2), ("c", 0))
    assert len(outbox) == 3
    assert outbox.waiting_bytes == 3

    outbox.close()

    assert await taken(outbox) == [["a", "b", "c"]]
    assert len(outbox) == 0
    assert outbox.waiting_bytes == 0


async def test_a_reader_waits_for_the_first_frame_and_wakes_with_it() -> None:
    outbox = filled()
    batches = outbox.batches()
    waiting = asyncio.ensure_future(next_of(batches))
    await asyncio.sleep(0)
    assert not waiting.done()

    outbox.put("a")

    assert await waiting == ["a"]


async def test_a_reader_waits_again_after_it_took_everything() -> None:
    outbox = filled(("a", 1))
    batches = outbox.batches()
    assert await anext(batches) == ["a"]
    waiting = asyncio.ensure_future(next_of(batches))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()

    outbox.put("b")
    outbox.put("c")

    assert await waiting == ["b", "c"]


async def test_a_batch_is_no_larger_than_allowed_and_order_is_kept() -> None:
    outbox = filled(("a", 20), ("b", 30), ("c", 1), ("d", 49), ("e", 0))
    outbox.close()

    assert await taken(outbox) == [["a", "b"], ["c", "d", "e"]]


async def test_a_frame_larger_than_a_batch_goes_alone() -> None:
    outbox = filled(("a", 1), ("huge", 500), ("b", 1))
    outbox.close()

    assert await taken(outbox) == [["a"], ["huge"], ["b"]]


async def test_a_batch_holds_no_more_frames_than_the_contract_allows() -> None:
    outbox = filled(*((str(number), 0) for number in range(BATCH_FRAMES + 1)))
    outbox.close()

    assert [len(batch) for batch in await taken(outbox)] == [BATCH_FRAMES, 1]
    assert BATCH_FRAMES <= 1024


async def test_a_producer_waits_at_the_high_water_mark_until_enough_was_taken() -> None:
    outbox = filled(("a", 50), ("b", 49))
    await outbox.room()
    outbox.put("c", 1)
    waiting = asyncio.ensure_future(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()

    batches = outbox.batches()
    assert await anext(batches) == ["a"]

    await waiting
    await outbox.room()


async def test_control_frames_fit_above_the_high_water_mark() -> None:
    outbox = filled(("bulk", 200))

    outbox.put("control", 1)
    outbox.close()

    assert await taken(outbox) == [["bulk"], ["control"]]


async def test_what_is_discarded_never_leaves_and_makes_room() -> None:
    outbox = filled(("keep 1", 10), ("drop 1", 90), ("keep 2", 5), ("drop 2", 0))
    waiting = asyncio.ensure_future(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()

    outbox.discard(lambda frame: frame.startswith("drop"))

    await waiting
    assert outbox.waiting_bytes == 15
    outbox.close()
    assert await taken(outbox) == [["keep 1", "keep 2"]]


async def test_discarding_too_little_makes_no_room() -> None:
    outbox = filled(("a", 90), ("b", 20), ("c", 5))
    outbox.discard(lambda frame: frame == "c")
    waiting = asyncio.ensure_future(outbox.room())
    await asyncio.sleep(0)

    assert not waiting.done()
    waiting.cancel()


async def test_a_reader_sleeps_on_when_everything_was_discarded() -> None:
    outbox = filled(("a", 1))
    outbox.discard(lambda _: True)
    batches = outbox.batches()
    waiting = asyncio.ensure_future(next_of(batches))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()

    outbox.put("b")

    assert await waiting == ["b"]


async def test_closing_ends_the_reader_after_what_already_waits() -> None:
    outbox = filled(("a", 40), ("b", 40))
    outbox.close()
    outbox.put("too late", 1)

    assert await taken(outbox) == [["a"], ["b"]]
    assert outbox.waiting_bytes == 0


async def test_closing_wakes_a_waiting_reader_and_a_waiting_producer() -> None:
    empty, full = filled(), filled(("a", 100))
    reader = asyncio.ensure_future(taken(empty))
    producer = asyncio.ensure_future(full.room())
    await asyncio.sleep(0)

    empty.close()
    full.close()

    assert await reader == []
    await producer


@pytest.mark.parametrize("size", [0, 99])
async def test_there_is_room_below_the_high_water_mark(size: int) -> None:
    await filled(("a", size)).room()


async def test_there_is_no_room_at_the_high_water_mark() -> None:
    waiting = asyncio.ensure_future(filled(("a", 100)).room())
    await asyncio.sleep(0)

    assert not waiting.done()
    waiting.cancel()
