"""The laws of docs/admission.md, each for any queue that hypothesis can think of."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_ephemeral_ec2.model.admission import (
    Because,
    Queue,
    admit,
)
from airflow_ephemeral_ec2.model.limit_names import TOTAL, name_limits
from airflow_ephemeral_ec2.model.queue import EntryState, Stage
from airflow_ephemeral_ec2.model.spec import Limits
from tests.unit.model.queue_cases import (
    POOLS,
    Case,
    all_limits,
    cases,
    count_taken,
    find_room,
    gaps,
    put_together,
    tight_limits,
)
from tests.unit.model.queue_entries import make_entry
from tests.unit.model.queue_sample import NOW, decide_sample


@given(cases())
def test_everybody_who_waits_is_admitted_or_told_why(case):
    decision = case.decide()

    waiting = {name for name in case.entries if not case.out(name)}
    assert {*decision.admitted, *decision.waiting} == waiting
    assert not set(decision.admitted) & set(decision.waiting)
    assert all(wait.reason for wait in decision.waiting.values())


@given(cases())
def test_no_limit_is_ever_exceeded(case):
    """Machines that run, are being launched or are shutting down count."""
    admitted = case.decide().admitted

    before, after = count_taken(case, ()), count_taken(case, admitted)
    for pool, limits in case.limits.items():
        for name, most in name_limits(limits).items():
            assert after[pool][name] <= max(most, before[pool][name])


@given(cases())
def test_what_is_out_is_counted_as_the_plainest_count_says(case):
    taken = case.decide().taken

    plain = count_taken(case, ())
    for pool, limits in case.limits.items():
        assert taken[pool] == {name: plain[pool][name] for name in name_limits(limits)}


@given(cases())
def test_the_order_is_promoted_then_no_backfill_then_priority_date_arrival(case):
    def plain(name):
        entry, state = case.entries[name], case.queue.states[name]
        promoted = case.queue.promoted
        return (
            name not in promoted, promoted.get(name, 0), entry.is_backfill, -entry.priority,
            entry.business_date, state.sequence,
        )  # fmt: skip

    decision = case.decide()

    for line in (decision.admitted, decision.waiting):
        assert list(line) == sorted(line, key=plain)


@given(cases(all_limits.map(lambda found: found.model_copy(update={"fill_gaps": False}))))
def test_without_gap_filling_nobody_is_passed_by_whom_he_shares_a_limit_with(case):
    decision = case.decide()

    for held, wait in decision.waiting.items():
        for passed in decision.admitted:
            if wait.because in (Because.ROOM, Because.BEHIND) and case.shares_pool(held, passed):
                is_behind = case.rank(passed) < case.rank(held)
                assert is_behind or wait.resource not in case.own(passed)


def check_gaps(case):
    """Whoever passes a head is gone when it has room, and there is room for all who pass."""
    decision = case.decide()
    for head in decision.heads:
        wait, room_at = decision.waiting[head], find_room(case, decision, head)
        assert wait.reserved_at == (room_at if room_at > NOW else None)
        for passed in decision.admitted:
            is_less = case.shares_pool(head, passed) and case.rank(passed) > case.rank(head)
            if is_less and wait.resource in case.own(passed):
                assert NOW + case.entries[passed].max_lifetime + 60 <= room_at
    before, after = count_taken(case, ()), count_taken(case, decision.admitted)
    for pool, limits in case.limits.items():
        for name, most in name_limits(limits).items():
            assert after[pool][name] <= max(most, before[pool][name])
    return decision


# Each way to break it is found in so many; they are cheap.
@settings(max_examples=max(150, settings.default.max_examples))
@given(gaps())
def test_who_fills_a_gap_is_proven_to_be_gone_before_the_reserved_time(case):
    check_gaps(case)


@given(cases(tight_limits, POOLS[:1]) | cases())
def test_so_is_whoever_passes_any_head_of_any_limit(case):
    check_gaps(case)


@given(cases(tight_limits, POOLS[:1]) | cases())
def test_at_the_reserved_time_the_room_is_there(case):
    """Should everything that is out or admitted now run as long as it may."""
    decision = case.decide()

    for head in decision.heads:
        wait = decision.waiting[head]
        if wait.reserved_at is None:
            continue
        left = replace(case.queue, blocked={}, entries=[
            entry for entry in case.queue.entries
            if not _is_gone(case, decision, entry.name, wait.reserved_at)
        ])  # fmt: skip
        kept = {entry.name for entry in left.entries}
        still = Case(replace(left, states={n: s for n, s in left.states.items() if n in kept}),
                     case.limits)  # fmt: skip
        before = [n for n in decision.admitted if n in kept]
        taken = count_taken(still, before)[case.queue.pools[head]][wait.resource]
        assert taken + case.entries[head].vcpus <= case.own(head)[wait.resource]


def _is_gone(case, decision, name, at):
    entry, state = case.entries[name], case.queue.states[name]
    if name in decision.admitted:
        return NOW + entry.max_lifetime <= at
    if state.stage is Stage.WAITING:
        return False
    began = state.launched_at or state.admitted_at
    return state.is_ending or max(began + entry.max_lifetime, NOW) <= at


@given(cases())
def test_own_limits_hold_back_only_those_that_share_them(case):
    decision = case.decide()

    for name, wait in decision.waiting.items():
        if wait.because is Because.BEHIND:
            assert wait.resource in case.own(name)
            assert wait.resource in case.own(wait.behind)
            assert case.shares_pool(name, wait.behind)


@given(cases())
def test_the_overall_limit_is_reserved_for_the_first_it_has_no_room_for(case):
    """That one fits its own limits: nobody waits overall behind one who could not go anyway."""
    decision = case.decide()

    for pool in POOLS:
        heads = [
            n for n in decision.heads
            if case.queue.pools[n] == pool and decision.waiting[n].resource == TOTAL
        ]  # fmt: skip
        assert len(heads) <= 1
        for name, wait in decision.waiting.items():
            is_in_line = wait.because in (Because.ROOM, Because.BEHIND)
            if case.queue.pools[name] == pool and is_in_line and wait.resource == TOTAL:
                assert heads
                assert case.rank(heads[0]) <= case.rank(name)


@given(cases())
def test_who_is_larger_than_a_limit_or_blocked_holds_up_nobody(case):
    decision = case.decide()

    idle = {
        name for name, wait in decision.waiting.items()
        if wait.because is Because.NEVER or name in case.queue.blocked
    }  # fmt: skip
    rest = [entry for entry in case.queue.entries if entry.name not in idle]
    others = Case(replace(case.queue, entries=rest), case.limits).decide()
    assert others.admitted == decision.admitted
    assert {n: w for n, w in decision.waiting.items() if n not in idle} == others.waiting


@given(cases())
def test_pools_do_not_know_of_each_other(case):
    one_run = [entry.model_copy(update={"run_key": ""}) for entry in case.queue.entries]
    case = replace(case, queue=replace(case.queue, entries=one_run))
    both = case.decide()

    for pool in POOLS:
        kept = [e for e in case.queue.entries if case.queue.pools[e.name] == pool]
        names = {entry.name for entry in kept}
        states = {n: s for n, s in case.queue.states.items() if n in names}
        alone = Case(replace(case.queue, entries=kept, states=states), case.limits).decide()
        assert alone.admitted == tuple(n for n in both.admitted if n in names)
        assert alone.waiting == {n: w for n, w in both.waiting.items() if n in names}


@given(cases())
def test_who_was_admitted_changes_nothing_for_those_ahead(case):
    """The decision is the same when those behind had never come."""
    decision = case.decide()

    if not decision.waiting:
        return
    last = max(decision.waiting, key=case.rank)
    behind = {n for n in (*decision.admitted, *decision.waiting) if case.rank(n) > case.rank(last)}
    kept = [entry for entry in case.queue.entries if entry.name not in behind]
    fewer = Case(replace(case.queue, entries=kept), case.limits).decide()
    assert fewer.waiting == decision.waiting


@given(cases())
def test_held_and_blocked_entries_are_never_admitted(case):
    decision = case.decide()

    assert not set(decision.admitted) & set(case.queue.blocked)


together = (cases() | cases(tight_limits) | cases(st.just(Limits()))).map(put_together)


@given(together)
def test_no_two_runs_do_the_same_at_the_same_time(case):
    """Nor does one write what the other reads."""
    decision = case.decide()

    out = [name for name in case.entries if case.out(name)]
    for place, name in enumerate(decision.admitted):
        others = (*out, *decision.admitted[:place])
        assert not [other for other in others if case.is_in_the_way_of(other, name)]


@given(together)
def test_who_stands_in_line_is_not_passed_by_another_run_that_does_the_same(case):
    decision = case.decide()

    for held in decision.waiting:
        for passed in decision.admitted:
            if case.is_in_line(held, decision) and case.rank(held) < case.rank(passed):
                assert not case.is_in_the_way_of(held, passed)


@given(together)
def test_nobody_waits_for_another_run_without_need(case):
    decision = case.decide()

    for name, wait in decision.waiting.items():
        if wait.because is Because.BLOCKED and name not in case.queue.blocked:
            assert [
                other for other in case.entries
                if case.is_in_the_way_of(other, name) and (
                    case.out(other) or (case.rank(other) < case.rank(name)
                    and (other in decision.admitted or case.is_in_line(other, decision)))
                )
            ]  # fmt: skip


@given(cases() | together, st.randoms(use_true_random=False))
def test_the_order_in_which_things_are_listed_decides_nothing(case, random):
    shuffled = list(case.queue.entries)
    random.shuffle(shuffled)
    states = dict(random.sample(sorted(case.queue.states.items()), len(case.queue.states)))

    again = Case(replace(case.queue, entries=shuffled, states=states), case.limits).decide()

    assert again == case.decide()


@given(cases())
def test_a_second_look_at_the_same_moment_admits_nobody_else(case):
    """What was admitted counts at once, as the machine that it will be."""
    decision = case.decide()

    states = dict(case.queue.states)
    for name in decision.admitted:
        admitted = {"stage": Stage.ADMITTED, "vcpus": case.entries[name].vcpus,
                    "admitted_at": NOW}  # fmt: skip
        states[name] = states[name].model_copy(update=admitted)
    again = Case(replace(case.queue, states=states), case.limits).decide()
    assert not [n for n in again.admitted if decision.waiting[n].because is Because.ROOM]


_SCRIPT = """
import json
from tests.unit.model.queue_sample import decide_sample
print(json.dumps(decide_sample()))
"""


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_the_same_input_gives_the_same_answer_in_any_process(seed):
    root = str(Path(__file__).parents[3])
    environ = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": root}

    found = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, check=True, env=environ, cwd=root
    )

    answer = json.loads(found.stdout)
    assert answer == decide_sample()
    assert answer[0]
    assert answer[1]


@given(st.lists(st.sampled_from([100, 500, 900]), min_size=2, max_size=8), st.integers(1, 4))
def test_equal_machines_are_admitted_strictly_by_priority(priorities, room):
    entries = [make_entry(f"{n:04d}", priority=p, vcpus=2) for n, p in enumerate(priorities)]
    states = {entry.name: EntryState(sequence=n) for n, entry in enumerate(entries)}
    queue = Queue(entries, states, {entry.name: POOLS[0] for entry in entries})

    decision = admit(queue, {POOLS[0]: Limits(vcpus=2 * room)}, NOW)

    by_name = {entry.name: entry.priority for entry in entries}
    line = [by_name[name] for name in (*decision.admitted, *decision.waiting)]
    assert all(first >= second for first, second in pairwise(line))
    assert len(decision.admitted) == min(room, len(entries))
