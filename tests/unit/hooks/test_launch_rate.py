"""Launches are paced, and time is the bucket's."""

from airflow_ephemeral_ec2.hooks.clock import BucketClock
from airflow_ephemeral_ec2.hooks.launch_rate import LaunchRate


class Hand:
    def __init__(self):
        self.at = 100.0

    def __call__(self):
        return self.at


def test_five_at_once_then_two_a_second():
    hand = Hand()
    rate = LaunchRate(monotonic=hand)

    burst = [rate.take() for _ in range(7)]
    hand.at += 1.0
    later = [rate.take() for _ in range(3)]

    assert burst == [True] * 5 + [False] * 2
    assert later == [True, True, False]


def test_the_burst_does_not_grow_while_nobody_launches():
    hand = Hand()
    rate = LaunchRate(monotonic=hand)
    hand.at += 3_600

    assert sum(rate.take() for _ in range(20)) == 5


def test_the_buckets_clock_counts_not_the_hosts():
    hand = Hand()
    clock = BucketClock(monotonic=hand, wall=lambda: 0.0)

    clock.observe("Mon, 02 Mar 2026 02:00:00 GMT")
    hand.at += 10

    assert clock.now() == 1_772_416_800.5 + 10


def test_whole_seconds_in_the_header_do_not_make_the_clock_jump():
    hand = Hand()
    clock = BucketClock(monotonic=hand, wall=lambda: 0.0)
    clock.observe("Mon, 02 Mar 2026 02:00:00 GMT")
    before = clock.now()
    hand.at += 0.3

    clock.observe("Mon, 02 Mar 2026 02:00:00 GMT")

    assert abs(clock.now() - before - 0.3) < 1e-6


def test_a_clock_that_is_far_off_is_corrected():
    hand = Hand()
    clock = BucketClock(monotonic=hand, wall=lambda: 0.0)
    clock.observe("Mon, 02 Mar 2026 02:00:00 GMT")

    clock.observe("Mon, 02 Mar 2026 03:00:00 GMT")

    assert clock.now() >= 1_772_416_800 + 3_600


def test_without_any_answer_the_hosts_clock_is_used():
    hand = Hand()

    assert BucketClock(monotonic=hand, wall=lambda: 5.0).now() == 5.0
