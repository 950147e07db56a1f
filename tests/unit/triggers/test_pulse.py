"""A triggerer that has stood still knows it."""

import asyncio

import pytest

from airflow_ephemeral_ec2.triggers.pulse import (
    DOUBT_SECONDS,
    STALL_SECONDS,
    Heart,
    Pulse,
    pulse,
)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_what_beats_is_not_in_doubt(clock):
    heart = Heart(STALL_SECONDS, clock)
    for _ in range(20):
        clock.now += 1.0
        heart.beat()

    assert not heart.is_in_doubt()


def test_who_asks_first_after_a_stall_hears_of_it(clock):
    """On waking up the cancellation may run before the next beat."""
    heart = Heart(STALL_SECONDS, clock)
    clock.now += STALL_SECONDS + 1

    assert heart.is_in_doubt()


def test_the_doubt_ends_when_airflow_has_had_time_to_cancel(clock):
    heart = Heart(STALL_SECONDS, clock)
    clock.now += STALL_SECONDS + 1
    heart.beat()
    doubts = []
    for _ in range(int(DOUBT_SECONDS) + 1):
        doubts.append(heart.is_in_doubt())
        clock.now += 1.0
        heart.beat()

    assert doubts[0]
    assert doubts[-2]
    assert not heart.is_in_doubt()


def test_a_time_in_which_nobody_watched_is_no_stall(clock):
    async def watch():
        felt = Pulse(clock)
        clock.now += STALL_SECONDS * 9
        with felt.felt():
            return felt.is_in_doubt()

    assert asyncio.run(watch()) is False


@pytest.mark.parametrize("answer", ["deferred", None], ids=["answers", "is silent"])
def test_airflow_that_gives_no_answer_for_long_puts_all_in_doubt(clock, answer):
    """In Airflow 3 the triggerer's other process may hang alone; its triggers are given away."""

    async def watch():
        felt = Pulse(clock)
        with felt.felt(lambda: answer):
            clock.now += STALL_SECONDS
            felt.loop.beat()
            await asyncio.sleep(0.2)  # the first question is answered, or not
            for _ in range(4):
                clock.now += STALL_SECONDS - 0.5
                felt.loop.beat()
            return felt.is_in_doubt()

    assert asyncio.run(watch()) is (answer is None)


def test_a_loop_has_one_pulse_and_leaves_no_task_behind():
    async def watch():
        with pulse().felt(), pulse().felt():
            inside = len(asyncio.all_tasks())
        await asyncio.sleep(0)
        return inside, len(asyncio.all_tasks())

    assert asyncio.run(watch()) == (3, 1)
