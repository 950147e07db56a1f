"""Time by S3's Date header."""

from airflow_ephemeral_ec2.agent.clock import Clock, from_iso


class Ticks:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_before_s3_answers_the_clock_is_the_machines():
    clock = Clock(Ticks(5.0), lambda: 1_000.0)

    assert clock.now() == 1_000.0


def test_the_first_date_header_sets_the_clock_and_monotonic_time_moves_it():
    ticks = Ticks(5.0)
    clock = Clock(ticks, lambda: 1_000.0)

    clock.observe("Sun, 01 Mar 2026 02:00:00 GMT")
    ticks.now += 1.5

    assert clock.iso() == "2026-03-01T02:00:01.500Z"
    assert clock.amz_date() == "20260301T020001Z"


def test_later_headers_within_a_minute_do_not_move_the_clock_back():
    ticks = Ticks(0.0)
    clock = Clock(ticks, lambda: 0.0)
    clock.observe("Sun, 01 Mar 2026 02:00:00 GMT")
    ticks.now += 10

    clock.observe("Sun, 01 Mar 2026 02:00:09 GMT")

    assert clock.iso() == "2026-03-01T02:00:10.000Z"


def test_a_header_far_off_sets_the_clock_again():
    clock = Clock(Ticks(0.0), lambda: 0.0)
    clock.observe("Sun, 01 Mar 2026 02:00:00 GMT")

    clock.observe("Sun, 01 Mar 2026 03:00:00 GMT")

    assert clock.iso() == "2026-03-01T03:00:00.000Z"


def test_a_broken_or_missing_header_is_ignored():
    clock = Clock(Ticks(0.0), lambda: 7.0)

    clock.observe(None)
    clock.observe("yesterday")

    assert clock.now() == 7.0


def test_expiration_times_are_read_with_and_without_fractions():
    assert from_iso("1970-01-01T00:01:00Z") == from_iso("1970-01-01T00:01:00.123Z") == 60.0


def test_the_first_header_counts_even_if_it_differs_by_seconds():
    clock = Clock(Ticks(0.0), lambda: from_iso("2026-03-01T02:00:05Z"))

    clock.observe("Sun, 01 Mar 2026 02:00:00 GMT")

    assert clock.iso() == "2026-03-01T02:00:00.000Z"
