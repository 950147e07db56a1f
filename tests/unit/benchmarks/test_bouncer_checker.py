"""The judge of ``bouncer``, with logs made by hand: limit 8 vCPUs, a grace of 5 s."""

import json
import subprocess
import sys

import pytest

from benchmarks.bouncer_checker import judge


def job(name, priority=500, vcpus=8, life=600, at=0.0, date="2026-03-01", depends=()):
    return {
        "name": name,
        "payer": "acme",
        "job": name,
        "date": date,
        "priority": priority,
        "vcpus": vcpus,
        "max_lifetime_s": life,
        "arrived_at": at,
        "depends": depends,
    }


def launch(name, at, ended_at):
    return {"name": name, "at": at, "ended_at": ended_at}


def count(arrivals, launches, grace=5.0):
    found = judge(arrivals, launches, 8, grace)
    return found["inversions"], found["passes"], found["over_limit"]


def test_a_launch_before_a_more_important_one_that_waits_is_an_inversion():
    arrivals = [job("high", 900), job("low", 100)]

    assert count(arrivals, [launch("low", 10, 50), launch("high", 51, 90)]) == (1, 0, 0)
    assert count(arrivals, [launch("high", 10, 50), launch("low", 51, 90)]) == (0, 0, 0)


def test_an_inversion_in_spite_of_room_for_both_is_told_apart():
    launches = [launch("low", 10, 50), launch("high", 51, 90)]
    short, roomy = ([job("high", 900, n), job("low", 100, n)] for n in (8, 4))

    assert judge(short, launches, 8, 5.0)["with_room"] == 0
    assert judge(roomy, launches, 8, 5.0)["with_room"] == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"date": "2026-03-01"}, {"date": "2026-03-02"}),
        ({"at": 0.0}, {"at": 20.0}),
    ],
)
def test_at_equal_priority_the_earlier_date_then_the_earlier_arrival_comes_first(first, second):
    arrivals = [job("first", **first), job("second", **second)]

    assert count(arrivals, [launch("second", 30, 50), launch("first", 51, 90)]) == (1, 0, 0)


def test_who_never_got_a_machine_was_passed():
    assert count([job("high", 900), job("low", 100)], [launch("low", 10, 50)]) == (1, 0, 0)


def test_nobody_is_passed_who_came_later_or_whose_input_was_not_there():
    late = [job("high", 900, at=11), job("low", 100)]
    dependent = [job("low", 100), job("high", 900, depends=("low",))]
    launches = [launch("low", 10, 50), launch("high", 51, 90)]

    assert count(late, launches) == (0, 0, 0)
    assert count(dependent, launches) == (0, 0, 0)


def test_what_is_younger_than_the_grace_need_not_have_been_known():
    arrivals = [job("high", 900, at=8), job("low", 100)]
    launches = [launch("low", 10, 50), launch("high", 51, 90)]

    assert count(arrivals, launches, grace=5.0) == (0, 0, 0)
    assert count(arrivals, launches, grace=1.0) == (1, 0, 0)


def gap(life):
    """``big`` needs all 8; ``runs`` has 6 of them until 1000 at the longest."""
    return [job("runs", 900, 6, life=1000), job("big", 800), job("small", 100, 2, life=life)]


LAUNCHES_OF_GAP = [launch("runs", 0, 990), launch("small", 100, 200), launch("big", 991, 1100)]


def test_who_is_surely_gone_before_the_head_can_start_is_a_proven_pass():
    assert count(gap(life=900), LAUNCHES_OF_GAP) == (0, 1, 0)


def test_who_might_still_be_there_is_an_inversion():
    assert count(gap(life=901), LAUNCHES_OF_GAP) == (1, 0, 0)


def test_who_fills_a_gap_before_a_more_important_one_that_could_is_an_inversion():
    arrivals = [*gap(life=300), job("middle", 500, 2, life=300)]
    launches = [*LAUNCHES_OF_GAP, launch("middle", 201, 300)]

    assert count(arrivals, launches) == (1, 1, 0)


def test_more_machines_than_the_limit_takes_are_found():
    arrivals = [job("one"), job("two", vcpus=2)]

    assert count(arrivals, [launch("one", 10, 50), launch("two", 49, 90)]) == (0, 0, 1)
    assert count(arrivals, [launch("one", 10, 50), launch("two", 50, 90)]) == (0, 0, 0)


def test_a_call_that_the_pace_kept_back_may_have_been_decided_before():
    # Five at once, then two a second; ``high`` has come shortly before them.
    times = [20.0] * 5 + [20.5, 21.0, 21.5, 22.0, 22.5]
    arrivals = [job(f"n{n}", 500, 1, at=n / 10) for n in range(10)]
    arrivals += [job("high", 900, 1, at=19.5), job("low", 100, 1)]
    launches = [launch(f"n{n}", at, 90) for n, at in enumerate(times)]
    launches += [launch("low", 23, 90), launch("high", 23.5, 90)]

    assert count(arrivals, launches, grace=3.0)[0] == 0
    # Without them the same call has waited for nobody's pace.
    assert count(arrivals[10:], launches[10:], grace=3.0) == (1, 0, 0)
    # Those who were admitted together are called in order.
    together = [one | {"arrived_at": 0.0} for one in arrivals]
    assert count(together, launches, grace=3.0)[0] == 11


def test_the_order_is_a_fingerprint_of_the_calls():
    arrivals = [job("a", vcpus=1), job("b", vcpus=1)]
    one = judge(arrivals, [launch("a", 1, 9), launch("b", 2, 9)], 8, 5.0)
    same = judge(arrivals, [launch("b", 5, 9), launch("a", 4, 9)], 8, 5.0)
    other = judge(arrivals, [launch("b", 1, 9), launch("a", 2, 9)], 8, 5.0)

    assert one["order_sha256"] == same["order_sha256"] != other["order_sha256"]


def test_it_reads_two_files(tmp_path):
    files = {"arrivals": [job("high", 900), job("low")], "launches": [launch("low", 10, 50)]}
    for name, lines in files.items():
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "benchmarks.bouncer_checker", *files, "8", "5"]

    done = subprocess.run(
        [str(tmp_path / w) if w in files else w for w in command],
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout)["inversions"] == 1


def test_of_two_machines_that_end_soon_the_first_alone_may_be_known_to():
    """Then the gap is too short for the more important one, and long enough for the other."""
    arrivals = [
        job("a", 900, 4, life=1_000), job("b", 900, 2, life=500), job("head", 800),
        job("longer", 700, 2, life=600), job("shorter", 100, 2, life=400),
    ]  # fmt: skip
    out = [launch("a", 0, 12), launch("b", 0, 18)]
    later = [launch("head", 31, 50), launch("longer", 51, 60)]

    assert count(arrivals, [*out, launch("shorter", 10, 30), *later]) == (0, 1, 0)
    out[0]["ended_at"] = 22
    assert count(arrivals, [*out, launch("shorter", 10, 30), *later]) == (1, 0, 0)
