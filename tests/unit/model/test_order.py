"""Order inside a payer, across runs."""

import pytest

from airflow_ephemeral_ec2.model.order import (
    DatedJob,
    DatedKey,
    History,
    OpenJobs,
    Recorded,
    dependencies_of,
    find_earlier_success,
    find_launch_time,
    find_open_obstacle,
    find_recorded_obstacle,
    find_rewritten_inputs,
    find_stale_inputs,
    has_any_success,
    parse_history,
    sum_up,
)
from tests.unit.model.queue_entries import make_entry

MEMBER = DatedKey("acme", "member", "2026-03-01")
CLAIMS = make_entry("c", "claims", depends_on=("member",))


def recorded(asked, *names):
    return sum_up(asked, parse_history(names))


def one(*jobkeys):
    return [DatedJob(jobkey, 0, 1) for jobkey in jobkeys]


def test_one_success_in_whatever_run_is_enough():
    found = recorded(one("r1", "r2"), "r1-a1-job_failed.json", "r2-a1-succeeded.json")

    assert found == Recorded(True)


def test_a_success_that_ran_again_and_failed_is_none():
    found = recorded(one("r1"), "r1-a1-succeeded.json", "r1-a10-job_failed.json")

    assert not found.has_succeeded
    assert found.text == "it ended: job failed"


def test_an_array_needs_all_its_parts():
    asked = [DatedJob(f"r{n}", n, 2) for n in range(2)]

    assert recorded(asked, "r0-a1-succeeded.json").text == "only some of its parts have succeeded"
    assert recorded(asked, "r0-a1-succeeded.json", "r1-a2-succeeded.json").has_succeeded


def test_a_part_that_skipped_itself_is_not_missing_but_a_job_that_only_skipped_is():
    asked = [DatedJob(f"r{n}", n, 2) for n in range(2)]

    assert recorded(asked, "r0-a1-succeeded.json", "r1-a1-skipped.json").has_succeeded
    assert not recorded(asked, "r0-a1-skipped.json", "r1-a1-skipped.json").has_succeeded
    assert not recorded(one("r1"), "r1-a1-skipped.json").has_succeeded


def test_parts_of_arrays_of_two_sizes_do_not_make_one():
    asked = [DatedJob("r0", 0, 2), DatedJob("r1", 1, 3)]

    assert not recorded(asked, "r0-a1-succeeded.json", "r1-a1-succeeded.json").has_succeeded


@pytest.mark.parametrize(
    ("asked", "text"),
    [([], "nobody has asked for it yet"), (one("r1"), "it has not ended yet")],
)
def test_what_is_missing_is_said(asked, text):
    assert sum_up(asked, History()) == Recorded(False, text=text)


def test_a_success_whose_input_ran_again_is_stale():
    found = recorded(one("r1"), "r1-a1-succeeded.json", "r1-a1.stale.json")

    assert found == Recorded(True, is_stale=True)
    assert find_stale_inputs(CLAIMS, {MEMBER: found}) == (MEMBER,)


def test_a_fresh_success_beside_a_stale_one_is_fresh():
    names = ["r1-a1-succeeded.json", "r1-a1.stale.json", "r2-a1-succeeded.json"]

    assert not recorded(one("r1", "r2"), *names).is_stale


@pytest.mark.parametrize(
    ("found", "at", "is_old"),
    [
        (Recorded(True), 100.5, True),
        (Recorded(True), 100.0, False),
        (Recorded(True), None, False),
        (Recorded(False), 100.5, True),
        (Recorded(True, is_stale=True), 99.0, True),
    ],
    ids=["newer", "at the launch", "older", "failed since", "stale itself"],
)
def test_what_was_written_again_after_the_launch_makes_a_success_stale(found, at, is_old):
    newest = {} if at is None else {MEMBER: at}

    rewritten = find_rewritten_inputs([MEMBER], 100.0, {MEMBER: found}, newest)

    assert rewritten == ((MEMBER,) if is_old else ())


@pytest.mark.parametrize(
    ("noted", "locked", "found"),
    [
        (9_000.0, 130.0, 135.0),
        (None, 130.0, 135.0),
        (100.7, 130.0, 100.7),
        (9_000.0, None, 9_000.0),
    ],
)
def test_a_launch_that_ec2_has_forgotten_was_before_its_machine_took_the_lock(noted, locked, found):
    """The queue state was lost as well: what it says now is of a later admission."""
    assert find_launch_time(noted, None, noted, locked) == found


@pytest.mark.parametrize(
    ("noted", "by_ec2", "admitted", "found"),
    [
        (100.7, 100.0, 99.0, 100.7),
        (100.7, 103.0, 99.0, 100.7),
        (200.0, 100.0, 99.0, 100.0),
        # Admitted again after the queue state was lost.
        (200.0, 100.0, 199.0, 105.0),
        # Its input succeeded at 100.3, and it was admitted in the same pass.
        (111.2, 100.0, 100.4, 100.4),
        (100.7, None, 99.0, 100.7),
        (None, None, None, None),
        # The queue state was lost: EC2's time is all there is, and it may be a little early.
        (100.0, 100.0, None, 105.0),
        (None, 100.0, None, 105.0),
    ],
)
def test_a_launch_is_dated_by_what_surely_is_no_earlier(noted, by_ec2, admitted, found):
    assert find_launch_time(noted, by_ec2, admitted) == found


def test_a_success_before_a_failure_is_none_and_one_part_is_some():
    assert not has_any_success(parse_history(["r1-a1-succeeded.json", "r1-a2-job_failed.json"]))
    assert has_any_success(parse_history(["r1-a1-succeeded.json", "r2-a1-job_failed.json"]))


@pytest.mark.parametrize(
    ("asked", "names", "found"),
    [
        (one("r1", "mine"), ["r1-a1-succeeded.json"], "r1-a1"),
        (one("r1"), ["r1-a1-job_failed.json", "r1-a2-succeeded.json"], "r1-a2"),
        (one("r1"), ["r1-a1-succeeded.json", "r1-a2-job_failed.json"], None),
        (one("r1"), ["r1-a1-succeeded.json", "r1-a1.stale.json"], None),
        (one("r1"), ["r1-a1-skipped.json"], None),
        (one("r1"), [], None),
        # What this run has done itself counts for nothing: it is asked to be done again.
        (one("mine"), ["mine-a1-succeeded.json"], None),
        # A part of an array, or the job when it had another number of parts.
        ([DatedJob("r1", 1, 2)], ["r1-a1-succeeded.json"], None),
        ([DatedJob("r1", 0, 2)], ["r1-a1-succeeded.json"], None),
    ],
)
def test_another_runs_success_of_the_same_part_is_found(asked, names, found):
    success = find_earlier_success(DatedJob("mine", 0, 1), asked, parse_history(names))

    assert (success.name if success else None) == found


def test_names_that_are_not_records_are_passed_over():
    assert parse_history(["order-1.000-hold-ab.json", "x", "r1-a1-succeeded"]) == History()


def test_an_open_attempt_of_a_dependency_blocks():
    member = make_entry("m", "member", title="acme/member 2026-03-01, attempt 2")

    why = find_open_obstacle(CLAIMS, OpenJobs([CLAIMS, member]))

    assert why == "waits for acme/member 2026-03-01, attempt 2, which is not over"


def test_an_attempt_of_another_run_blocks_only_while_it_is_out_or_comes_first():
    """``admit`` looks at that; a run that was only asked for must not hold another one up."""
    claims = CLAIMS.model_copy(update={"run_key": "one"})
    member = make_entry("m", "member", run_key="two")

    assert find_open_obstacle(claims, OpenJobs([claims, member])) is None
    own = member.model_copy(update={"run_key": "one"})
    assert "is not over" in find_open_obstacle(claims, OpenJobs([member, own, claims]))
    anybodys = member.model_copy(update={"run_key": ""})
    assert "is not over" in find_open_obstacle(claims, OpenJobs([member, anybodys, claims]))


@pytest.mark.parametrize("changes", [{"payer": "pea"}, {"business_date": "2026-02-28"}])
def test_other_payers_and_dates_do_not_block(changes):
    assert find_open_obstacle(CLAIMS, OpenJobs([make_entry("m", "member", **changes)])) is None


def test_a_missing_success_blocks_and_is_named():
    why = find_recorded_obstacle(CLAIMS, {MEMBER: Recorded(False, text="it ended: x")}, None)

    assert why == "waits for a success of acme/member 2026-03-01: it ended: x"
    assert find_recorded_obstacle(CLAIMS, {MEMBER: Recorded(True)}, None) is None


def test_an_override_waits_for_nothing():
    entry = make_entry(
        "c", depends_on=("member",), in_order_by_date=True, order_override="the payer called"
    )
    earlier = make_entry("e", business_date="2026-02-28")

    assert dependencies_of(entry) == ()
    assert find_open_obstacle(entry, OpenJobs([make_entry("m", "member"), earlier])) is None


def test_in_order_by_date_waits_for_the_date_before():
    entry = make_entry("c", in_order_by_date=True)
    earlier = make_entry("e", business_date="2026-02-28")
    key = DatedKey("acme", "claims", "2026-02-28")

    assert "in_order_by_date" in find_open_obstacle(entry, OpenJobs([entry, earlier]))
    assert find_open_obstacle(earlier, OpenJobs([entry, earlier])) is None
    assert "in_order_by_date" in find_recorded_obstacle(entry, {key: Recorded(False)}, "2026-02-28")
    assert find_recorded_obstacle(entry, {key: Recorded(True)}, "2026-02-28") is None


def test_in_order_by_date_does_not_wait_for_a_date_that_had_nothing_to_do():
    entry, key = make_entry("c", in_order_by_date=True), DatedKey("acme", "claims", "2026-02-28")
    two = [DatedJob(f"r{n}", n, 2) for n in range(2)]
    for asked, names, waits in (
        (one("r1"), ["r1-a1-skipped.json"], False),
        (two, ["r0-a1-skipped.json", "r1-a1-skipped.json"], False),
        (two, ["r0-a1-skipped.json"], True),
        (one("r1", "r2"), ["r1-a1-skipped.json", "r2-a1-job_failed.json"], True),
        (one("r1"), ["r1-a1-skipped.json", "r1-a2-killed.json"], True),
    ):
        found = find_recorded_obstacle(entry, {key: recorded(asked, *names)}, "2026-02-28")
        assert bool(found) is waits, names
