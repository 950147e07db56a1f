from dataclasses import replace
from itertools import pairwise

import pytest

from tests.system.checker import (
    EXPECTED,
    NEVER_LAUNCHED,
    ORDER,
    Count,
    Evidence,
    Instance,
    find_violations,
)
from tests.system.checker_evidence import counts_of, instances_of


def _good():
    """Evidence of a demo in which everything went as promised."""
    instances, counts = [], []
    for (payer, job), code in EXPECTED.items():
        if code is NEVER_LAUNCHED:
            continue
        at = 100.0 * ORDER.index(job)
        instances.append(Instance(f"i-{payer}-{job}", payer, job, at, "terminated"))
        counts.append(Count(payer, job, "start", f"{payer}{job}", at + 10))
        counts.append(Count(payer, job, "end", f"{payer}{job}", at + 20, code))
    return Evidence(tuple(instances), tuple(counts))


def _without(evidence, payer, job, phase):
    keep = [c for c in evidence.counts if (c.payer, c.job, c.phase) != (payer, job, phase)]
    return replace(evidence, counts=tuple(keep))


def _with_count(evidence, *more):
    return replace(evidence, counts=(*evidence.counts, *more))


def _with_instance(evidence, *more):
    return replace(evidence, instances=(*evidence.instances, *more))


def _kinds(evidence):
    return {line.partition(":")[0] for line in find_violations(evidence)}


def test_a_good_demo_has_no_findings():
    assert find_violations(_good()) == []


def test_no_evidence_at_all_is_not_a_good_demo():
    found = find_violations(Evidence())

    assert len([line for line in found if line.startswith("exit:")]) == 11


def test_an_exit_status_that_is_not_the_expected_one_is_found():
    good = _without(_good(), "umbra", "claims", "end")

    found = find_violations(_with_count(good, Count("umbra", "claims", "end", "r", 220.0, 0)))

    assert found == ["exit: umbra/claims ended with 0, expected 65"]


def test_a_job_that_must_never_run_is_found_when_it_was_launched():
    found = find_violations(
        _with_instance(_good(), Instance("i-9", "umbra", "downstream", 300.0, "terminated"))
    )

    assert "exit: umbra/downstream ran and must never have been launched" in found


def test_a_job_that_never_ended_is_found():
    assert "missing" in _kinds(_without(_good(), "bolt", "downstream", "end"))


def test_a_second_start_of_a_job_is_found():
    again = Count("acme", "downstream", "start", "other", 350.0)

    assert find_violations(_with_count(_good(), again)) == [
        "double: acme/downstream was started 2 times, expected once"
    ]


def test_a_second_launch_of_a_job_is_found_even_if_it_did_no_work():
    again = Instance("i-2", "acme", "downstream", 350.0, "terminated")

    assert find_violations(_with_instance(_good(), again)) == [
        "double: acme/downstream was launched 2 times, expected once"
    ]


@pytest.mark.parametrize(("before", "after"), [*pairwise(ORDER)])
def test_a_job_that_starts_before_the_one_before_it_has_ended_is_found(before, after):
    good = _without(_good(), "bolt", after, "start")
    too_early = 100.0 * ORDER.index(before) + 19

    found = find_violations(_with_count(good, Count("bolt", after, "start", "x", too_early)))

    assert found == [f"order: bolt/{after} started before bolt/{before} had ended"]


def test_a_machine_launched_before_its_turn_is_found_although_its_job_waited():
    early = [
        replace(one, launched=5.0) if (one.payer, one.job) == ("acme", "claims") else one
        for one in _good().instances
    ]

    found = find_violations(replace(_good(), instances=tuple(early)))

    assert _kinds(replace(_good(), instances=tuple(early))) == {"order"}
    assert len(found) == 2


@pytest.mark.parametrize("state", ["pending", "running", "shutting-down", "stopped"])
def test_an_instance_that_is_not_terminated_is_an_orphan(state):
    alive = [replace(one, last_state=state) for one in _good().instances[:1]]

    found = find_violations(replace(_good(), instances=(*alive, *_good().instances[1:])))

    assert found == [f"orphan: i-acme-member (acme/member) is still {state}"]


def test_an_instance_that_nobody_asked_for_is_found():
    assert _kinds(_with_instance(_good(), Instance("i-9", "", "", 1.0, "terminated"))) == {
        "stranger"
    }


def test_a_process_that_outlives_its_machine_is_found():
    assert _kinds(replace(_good(), processes=("77 python3",))) == {"orphan"}


def test_processes_and_folders_left_after_the_stop_are_found():
    left = replace(_good(), processes_after=("78 airflow",), folders_after=("/x/i-1",))

    assert find_violations(left) == [
        "left over after the stop: process 78 airflow",
        "left over after the stop: folder /x/i-1",
    ]


def _state(at, instance_id, state, **tags):
    named = {f"ephemeral-ec2:{name}": value for name, value in tags.items()}
    return {"t": at, "event": "state", "instance_id": instance_id, "state": state, "tags": named}


def test_an_instance_in_the_log_has_its_first_time_and_its_last_state():
    lines = [
        _state(1.0, "i-1", "pending", payer="acme", job="member"),
        {"t": 1.5, "service": "ec2", "action": "DescribeInstances", "params": {}, "status": 200},
        _state(2.0, "i-1", "running", payer="acme", job="member"),
    ]

    assert instances_of(lines) == (Instance("i-1", "acme", "member", 1.0, "running"),)


def _put(at, key, status=200):
    return {"t": at, "action": "PutObject", "params": {"Key": key}, "status": status}


def test_a_counter_has_the_time_at_which_it_was_written():
    body = {"payer": "acme", "job": "member", "phase": "end", "run": "r", "exit_code": 0}

    found = counts_of([_put(3.0, "k", 403), _put(4.0, "k")], {"k": body})

    assert found == (Count("acme", "member", "end", "r", 4.0, 0),)


def test_a_counter_that_nobody_wrote_is_not_believed():
    body = {"payer": "acme", "job": "member", "phase": "end", "run": "r", "exit_code": 0}

    with pytest.raises(KeyError):
        counts_of([_put(3.0, "k", 403)], {"k": body})
