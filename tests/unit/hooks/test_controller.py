"""The one loop over a scripted fleet: the store is real, the machines are values."""

import pytest
from botocore.exceptions import ReadTimeoutError

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.exceptions import AccessError, AwsUnavailableError
from airflow_ephemeral_ec2.hooks.attempts import kill_attempt
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.fleet import ConsoleOutput
from airflow_ephemeral_ec2.hooks.queue_ledger import LEASE_SECONDS
from airflow_ephemeral_ec2.model.outcome import Kill, Outcome
from airflow_ephemeral_ec2.model.plan import plan_entry
from tests.unit.hooks.scripted import (
    forget_launches,
    heir_of,
    lock_for,
    marker_of,
    name_of,
    outcome_of,
    refusal,
    report,
    take_lock,
)


def test_a_job_is_admitted_launched_watched_and_concluded(controller, fleet, store, submit):
    record = submit()

    assert outcome_of(controller, record) is None
    report(store, record, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    outcome = outcome_of(controller, record)

    assert (outcome.outcome, outcome.exit_code) == (Outcome.SUCCEEDED, 0)
    assert outcome.machine.instance_id == "i-0"
    assert len(fleet.requests) == 1
    assert store.list_queue().entries == frozenset()
    assert controller.has_work is False


def test_O10_the_report_alone_does_not_end_an_attempt_whose_machine_lives(
    controller, fleet, store, submit
):
    """The report is there and the machine still shuts down."""
    record = submit()
    controller.tick()
    report(store, record, "i-0")
    fleet.set("i-0", "shutting-down")

    assert outcome_of(controller, record) is None


def test_O1_another_process_carries_on_from_the_bucket(controller, fleet, store, submit, clock):
    """The controller is gone; another process starts with nothing."""
    record = submit()
    controller.tick()
    report(store, record, "i-0")
    fleet.set("i-0", "terminated")
    clock.at += LEASE_SECONDS + 1
    heir = Controller(store, lambda _connection, _region: fleet)

    outcome = outcome_of(heir, record)

    assert outcome.outcome is Outcome.SUCCEEDED
    assert len(fleet.requests) == 1


def test_O2_only_the_holder_of_the_lease_acts_and_the_other_hears_the_outcome(
    controller, fleet, store, submit
):
    """Two controllers watch."""
    controller.tick()
    other = Controller(store, lambda _connection, _region: fleet)
    record = submit()

    assert outcome_of(other, record) is None
    assert fleet.requests == []
    controller.tick()
    report(store, record, "i-0")
    fleet.set("i-0", "terminated")
    controller.tick()

    assert outcome_of(other, record).outcome is Outcome.SUCCEEDED


def test_a_released_lease_is_taken_at_once(controller, fleet, store, submit):
    controller.tick()
    controller.release()
    other = Controller(store, lambda _connection, _region: fleet)
    submit()

    other.tick()

    assert len(fleet.requests) == 1


def test_no_capacity_walks_the_placements_in_order_and_writes_each_refusal_down(
    controller, fleet, store, submit
):
    record = submit()
    fleet.refusals = [refusal("InsufficientInstanceCapacity", 500)] * 2

    controller.tick()

    types = [(r["InstanceType"], r["NetworkInterfaces"][0]["SubnetId"]) for r in fleet.requests]
    assert types == [
        ("m7i.large", "subnet-0a1"),
        ("m7i.large", "subnet-0b2"),
        ("m6i.large", "subnet-0a1"),
    ]
    refused = [k for k in store.list_keys(f"test/jobs/{record.jobkey}/") if "refused" in k]
    assert len(refused) == 2


def test_a_machine_that_comes_up_after_its_attempt_was_given_up_may_not_start(
    controller, fleet, store, submit
):
    record = submit()
    fleet.refusals = [refusal("InsufficientInstanceCapacity", 500)] * 4

    controller.tick()

    assert "no EC2 capacity" in store.read_start_lock(record).revoked


def test_no_capacity_anywhere_is_an_outcome_that_may_be_retried(controller, fleet, submit):
    record = submit()
    fleet.refusals = [refusal("InsufficientInstanceCapacity", 500)] * 4

    outcome = outcome_of(controller, record)

    assert (outcome.outcome, outcome.budget) == (Outcome.NO_CAPACITY, "infra")
    assert "m6i.large on-demand subnet-0b2" in outcome.reason


@pytest.mark.parametrize(
    "lost",
    [
        refusal("InternalError", 500),
        refusal("Unavailable", 503),
        refusal("RequestLimitExceeded", 503),
        ReadTimeoutError(endpoint_url="http://ec2"),
    ],
    ids=["500", "503", "throttled", "timeout"],
)
def test_an_unclear_answer_is_asked_again_with_the_same_request(
    controller, fleet, submit, clock, lost
):
    submit()
    fleet.refusals = [lost]

    controller.tick()
    clock.at += 5
    controller.tick()

    assert len(fleet.requests) == 2
    assert fleet.requests[0] == fleet.requests[1]


def test_a_quota_does_not_walk_the_placements(controller, fleet, submit, clock):
    record = submit()
    fleet.refusals = [refusal("VcpuLimitExceeded")]

    controller.tick()
    clock.at += 5
    controller.tick()

    assert len(fleet.requests) == 1
    assert "Service Quotas" in controller.story_of(name_of(record))[-1]


@pytest.mark.parametrize("code", ["InvalidAMIID.NotFound", "InvalidSubnetID.NotFound", "Weird"])
def test_L22_a_wrong_request_fails_at_once(controller, fleet, submit, code):
    """The AMI was deregistered between look-up and launch."""
    record = submit()
    fleet.refusals = [refusal(code)]

    outcome = outcome_of(controller, record)

    assert (outcome.outcome, outcome.budget) == (Outcome.BAD_CONFIG, "none")
    assert code in outcome.reason
    assert len(fleet.requests) == 1


def test_L21_a_denied_launch_says_what_to_grant(controller, fleet, submit):
    """RunInstances is denied."""
    record = submit()
    fleet.refusals = [refusal("UnauthorizedOperation", 403)]

    assert "Grant ec2:RunInstances and iam:PassRole" in outcome_of(controller, record).reason


def test_the_queue_admits_by_priority_within_the_limit(controller, fleet, store, submit):
    low = submit("a" * 40, limit=2, priority=100)
    high = submit("b" * 40, limit=2, priority=900)

    controller.tick()
    assert len(fleet.requests) == 1
    assert "0 of 2 free" in controller.story_of(name_of(low))[-1]
    report(store, high, "i-0")
    fleet.set("i-0", "terminated")
    controller.tick()

    assert [r["ClientToken"] for r in fleet.requests] == [
        high.placements[0].client_token,
        low.placements[0].client_token,
    ]


def test_of_two_runs_of_one_date_the_second_waits_for_the_end_of_the_first_ones_machine(
    controller, fleet, store, submit
):
    """Should both be at work, each would write what the other one writes."""
    first, second = submit("a" * 40, run_key="one"), submit("b" * 40, run_key="two")

    controller.tick()
    why = "waits for another run of payer_acme, which asks for the same and comes first"
    assert controller.story_of(name_of(second)) == (f"queued: {why}",)
    report(store, first, "i-0")
    fleet.set("i-0", "shutting-down")
    controller.tick()
    controller.tick()
    assert len(fleet.requests) == 1
    fleet.set("i-0", "terminated")
    controller.tick()

    assert outcome_of(controller, first).outcome == "succeeded"
    assert fleet.requests[1]["ClientToken"] == second.placements[0].client_token


def test_what_one_run_asks_for_twice_runs_at_the_same_time(controller, fleet, submit):
    submit("a" * 40, run_key="one")
    submit("b" * 40, run_key="one")

    controller.tick()

    assert len(fleet.requests) == 2


def test_a_killed_attempt_that_waits_is_never_launched(controller, fleet, store, submit):
    record = submit()
    kill_attempt(store, fleet, record.jobkey, 1, Kill("cancelled"))

    outcome = outcome_of(controller, record)

    assert outcome.outcome is Outcome.KILLED
    assert fleet.requests == []
    assert store.read_start_lock(record).revoked == "cancelled"


def test_a_killed_machine_is_terminated_and_then_concluded(controller, fleet, store, submit):
    record = submit()
    controller.tick()
    fleet.set("i-0", "running")
    kill_attempt(store, fleet, record.jobkey, 1, Kill("cancelled", by="Airflow"))
    assert fleet.terminated == ["i-0"]

    assert outcome_of(controller, record) is None
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")
    outcome = outcome_of(controller, record)

    assert (outcome.outcome, outcome.reason) == (Outcome.KILLED, "cancelled by Airflow")
    assert store.list_queue().kills == frozenset()


def test_K7_a_kill_that_comes_too_late_changes_nothing(controller, fleet, store, submit):
    """The kill comes after the report of a success."""
    record = submit()
    controller.tick()
    report(store, record, "i-0")
    fleet.set("i-0", "terminated")
    controller.tick()

    assert kill_attempt(store, fleet, record.jobkey, 1, Kill("cancelled")) is False
    assert outcome_of(controller, record).outcome is Outcome.SUCCEEDED


def test_B1_B15_a_machine_that_never_starts_is_given_up_after_boot_timeout(
    controller, fleet, store, submit, clock
):
    """The machine runs and never takes the start lock."""
    record = submit(boot_timeout="1m")
    controller.tick()
    fleet.set("i-0", "running")
    clock.at += 61

    controller.tick()
    assert fleet.terminated == ["i-0"]
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")

    assert outcome_of(controller, record).outcome is Outcome.BOOT_TIMEOUT


def test_a_job_that_started_in_time_is_left_alone_after_boot_timeout(
    controller, fleet, store, submit, clock
):
    record = submit(boot_timeout="1m")
    controller.tick()
    fleet.set("i-0", "running")
    key = contract.start_lock_key("test", record.jobkey, 1, record.nonce)
    store.write_new(key, b'{"instance_id": "i-0"}')
    clock.at += 61

    controller.tick()

    assert fleet.terminated == []
    assert store.list_queue().kills == frozenset()


def test_R9_a_machine_that_outlives_its_deadline_is_ended(controller, fleet, store, submit, clock):
    """The machine hangs and says nothing any more."""
    record = submit(boot_timeout="1m", max_runtime="1m", stop_grace="1s")
    controller.tick()
    fleet.set("i-0", "running")
    clock.at += 60 + 60 + 1 + 121

    controller.tick()
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")

    assert fleet.terminated == ["i-0"]
    assert outcome_of(controller, record).outcome is Outcome.JOB_TIMEOUT


def test_a_stopped_machine_is_ended_because_its_disk_stays(controller, fleet, submit):
    submit()
    controller.tick()
    fleet.set("i-0", "stopped")

    controller.tick()

    assert fleet.terminated == ["i-0"]


def test_L31_a_machine_that_is_not_shown_is_not_gone(controller, fleet, submit, clock):
    """EC2 does not show the machine after its launch."""
    record = submit(max_runtime="5h")
    controller.tick()
    fleet.machines.clear()
    clock.at += 300

    assert outcome_of(controller, record) is None


def test_L12_an_attempt_waits_until_the_one_before_it_has_ended(controller, fleet, store, submit):
    """The task was cleared while its machine lives."""
    first = submit()
    controller.tick()
    fleet.set("i-0", "running")
    kill_attempt(store, fleet, first.jobkey, 1, Kill("superseded"))
    second = submit(attempt=2, supersedes=1)

    controller.tick()
    assert len(fleet.requests) == 1
    assert "attempt 1 is still being ended" in controller.story_of(name_of(second))[-1]
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")
    controller.tick()
    controller.tick()

    assert len(fleet.requests) == 2
    assert store.read_outcome(first.jobkey, 1).outcome is Outcome.SUPERSEDED


def test_an_attempt_that_waits_too_long_gives_up_by_name(controller, fleet, submit, clock):
    submit("a" * 40, limit=2)
    record = submit("b" * 40, limit=2, max_wait="1m", priority=1)
    controller.tick()
    clock.at += 61

    outcome = outcome_of(controller, record)

    assert outcome.outcome is Outcome.WAIT_TIMEOUT
    assert "0 of 2 free" in outcome.reason


def test_a_dead_token_is_looked_up_and_judged(controller, fleet, store, submit):
    record = submit()
    token = record.placements[0].client_token
    fleet.tokens[token] = "i-9"
    fleet.set("i-9", "terminated", reason="Client.InstanceInitiatedShutdown")
    fleet.refusals = [refusal("IdempotentInstanceTerminated")]
    report(store, record, "i-9", exit_code=65)

    controller.tick()
    outcome = outcome_of(controller, record)

    assert (outcome.outcome, outcome.exit_code) == (Outcome.JOB_FAILED, 65)


def test_L17_the_fleet_is_launched_no_faster_than_ec2_allows(controller, fleet, submit):
    """Many launches at once."""
    for i in range(8):
        submit(f"{i:040d}")

    controller.tick()

    assert len(fleet.requests) == 5


def test_a_record_that_cannot_be_read_holds_up_nobody_else(controller, fleet, store, submit):
    broken = "b" * 40
    store.write_new(f"test/queue/{broken}-a1.json", b"{}")
    submit()

    controller.tick()

    assert len(fleet.requests) == 1
    assert "not a QueueEntry of this version" in controller.story_of(f"{broken}-a1")[0]


def test_a_region_that_refuses_us_holds_up_only_its_own_jobs(store, fleet, clock, submit):
    def fleet_for(_connection, region):
        if region == "eu-central-1":
            raise AccessError("eu-central-1", "denied.")
        return fleet

    controller = Controller(store, fleet_for)
    refused = submit("a" * 40, region="eu-central-1", priority=900)
    submit("b" * 40)

    controller.tick()

    assert len(fleet.requests) == 1
    assert controller.story_of(name_of(refused)) == (
        "queued: eu-central-1: denied. Will ask again.",
    )


def test_the_more_important_job_is_launched_first(controller, fleet, submit):
    low = submit("a" * 40, priority=100)
    high = submit("b" * 40, priority=900)

    controller.tick()

    assert [r["ClientToken"] for r in fleet.requests] == [
        high.placements[0].client_token,
        low.placements[0].client_token,
    ]


def test_K6_a_kill_after_a_crash_ends_the_machine_before_the_attempt(
    controller, fleet, store, submit
):
    """The launch was lost in a crash and the task is killed."""
    record = submit()
    controller.tick()
    forget_launches(store, controller)
    take_lock(store, record, "i-0")
    fleet.set("i-0", "running")
    store.write_kill(name_of(record), Kill("cancelled"))
    heir = heir_of(store, fleet)

    assert outcome_of(heir, record) is None
    assert fleet.terminated == ["i-0"]
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")

    assert outcome_of(heir, record).outcome is Outcome.KILLED


def test_a_denied_replay_proves_nothing_about_the_launch_before_it(
    controller, fleet, store, submit, clock
):
    record = submit()
    fleet.refusals = [
        ReadTimeoutError(endpoint_url="http://ec2"),
        refusal("UnauthorizedOperation", 403),
    ]
    controller.tick()
    fleet.set("i-9", "running")
    take_lock(store, record, "i-9")
    clock.at += 5

    assert outcome_of(controller, record) is None
    assert fleet.terminated == []
    assert store.list_queue().entries == {name_of(record)}
    report(store, record, "i-9")
    fleet.set("i-9", "terminated")
    assert outcome_of(controller, record).outcome is Outcome.SUCCEEDED


def test_L2_after_a_crash_a_refused_placement_stays_refused(controller, fleet, store, submit):
    """A crash between a refusal and the next placement."""
    record = submit()
    fleet.refusals = [refusal("InsufficientInstanceCapacity", 500)]
    controller.tick()
    forget_launches(store, controller)

    heir_of(store, fleet).tick()

    assert [r["ClientToken"] for r in fleet.requests] == [
        record.placements[0].client_token,
        record.placements[1].client_token,
        record.placements[1].client_token,
    ]
    assert len(fleet.machines) == 1


def test_the_machine_that_holds_the_start_lock_speaks_for_the_attempt(
    controller, fleet, store, submit
):
    record = submit()
    controller.tick()
    take_lock(store, record, "i-7")
    fleet.set("i-7", "running")
    report(store, record, "i-0", phase="superseded", exit_code=None)
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    assert outcome_of(controller, record) is None
    report(store, record, "i-7")
    fleet.set("i-7", "terminated")

    assert outcome_of(controller, record).machine.instance_id == "i-7"


def test_an_entry_that_is_written_again_after_its_end_is_not_launched_again(
    controller, fleet, store, submit
):
    record = submit()
    fleet.refusals = [refusal("InvalidAMIID.NotFound")]
    controller.tick()
    store.write_entry(plan_entry(record))

    controller.tick()

    assert len(fleet.requests) == 1
    assert store.list_queue().entries == frozenset()


def test_O5_a_region_that_cannot_be_asked_now_holds_up_only_its_own_jobs(
    controller, fleet, store, submit, clock
):
    first = submit("a" * 40)
    controller.tick()
    fleet.observe = lambda *_a, **_k: (_ for _ in ()).throw(AwsUnavailableError("ec2", "timeout"))
    submit("b" * 40)

    controller.tick()

    assert len(fleet.requests) == 2
    assert "ec2: timeout Will ask again." in controller.story_of(name_of(first))[-1]


def test_a_fault_of_our_own_in_one_attempt_stops_nobody_else(controller, fleet, store, submit):
    first = submit("a" * 40)
    controller.tick()
    fleet.set("i-0", "terminated")
    arn = fleet.machines["i-0"].arn
    store.write_new(contract.report_key("test", arn), b"[" * 100_000)
    submit("b" * 40)

    controller.tick()

    assert len(fleet.requests) == 2
    assert store.read_outcome(first.jobkey, 1).outcome is Outcome.TAMPERED


def test_a_quota_after_an_unclear_answer_does_not_keep_a_kill_from_ending_it(
    controller, fleet, store, submit, clock
):
    record = submit()
    fleet.refusals = [refusal("InternalError", 500), refusal("VcpuLimitExceeded")]
    controller.tick()
    clock.at += 5
    controller.tick()
    kill_attempt(store, fleet, record.jobkey, 1, Kill("cancelled"))

    assert outcome_of(controller, record).outcome is Outcome.KILLED


def test_a_record_of_another_release_keeps_its_vcpus(controller, fleet, store, submit):
    record = submit(limit=2)
    controller.tick()
    store.s3.put_object(Bucket=store.bucket, Key=f"test/queue/{name_of(record)}.json", Body=b"{}")
    submit("b" * 40, limit=2)
    state, etag = store.read_state()
    store.write_state(state.model_copy(update={"lease": None}), etag)

    heir_of(store, fleet).tick()

    assert len(fleet.requests) == 1
    assert store.read_state()[0].entries[name_of(record)].instance_id == "i-0"


def test_O11_O15_a_machine_is_gone_only_when_old_and_missed_again_and_again(
    controller, fleet, store, submit, clock
):
    """Sweeps do not show the machine, then do, then do not."""
    record = submit(max_runtime="5h")
    controller.tick()
    take_lock(store, record, "i-0")
    known = dict(fleet.machines)
    shown_in = [False, False, True, False, False]
    clock.at += 3_700

    for is_shown in shown_in:
        fleet.machines = known if is_shown else {}
        clock.at += 61
        assert outcome_of(controller, record) is None

    clock.at += 61
    assert outcome_of(controller, record).outcome is Outcome.LOST_STATUS
    assert fleet.terminated == ["i-0"]


def test_K10_a_machine_that_is_shown_to_nobody_ends_before_its_attempt_does(
    controller, fleet, store, submit, clock
):
    """Nobody can say that it does not run; as long as EC2 cannot be told to end it, nothing is over."""
    record = submit(max_runtime="5h")
    controller.tick()
    take_lock(store, record, "i-0")
    fleet.machines = {}
    clock.at += 3_700
    terminate, fleet.terminate = fleet.terminate, raise_unavailable
    for _ in range(5):
        clock.at += 61
        assert outcome_of(controller, record) is None

    fleet.terminate = terminate
    clock.at += 61

    assert outcome_of(controller, record).outcome is Outcome.LOST_STATUS
    assert fleet.terminated == ["i-0"]


def raise_unavailable(*_, **__):
    raise AwsUnavailableError("ec2:TerminateInstances", "503")


@pytest.mark.parametrize("kind", ["repeated", "missing", "expired token"])
def test_O15_a_listing_with_a_bad_page_loses_no_machine(
    controller, fleet, store, submit, clock, kind
):
    """DescribeInstances repeats a page, leaves one out, or says that its token has expired."""
    record = submit(max_runtime="5h")
    controller.tick()
    take_lock(store, record, "i-0")
    clock.at += 3_700
    observe = fleet.observe

    def broken(*args, **how):
        found = observe(*args, **how)
        if kind == "expired token":
            raise AwsUnavailableError("ec2:DescribeInstances", "InvalidNextToken")
        return found * 2 if kind == "repeated" else []

    for number in range(6):
        # Every third sweep is sound; what fails as a whole counts as nothing seen at all.
        is_sound = number % 3 == 2 and kind == "missing"
        fleet.observe = observe if is_sound else broken
        clock.at += 61
        assert outcome_of(controller, record) is None
    assert fleet.terminated == []


def test_without_a_report_the_console_speaks_and_is_kept_beside_the_log(
    controller, fleet, store, submit, clock
):
    record = submit()
    controller.tick()
    lock_for(store, record)
    fleet.console = ConsoleOutput("booting\r\n" + marker_of(record, exit_code=37), clock.at)
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    found = outcome_of(controller, record)

    assert (found.outcome, found.exit_code, found.is_from_console) == ("job_failed", 37, True)
    assert found.report_uri is None
    key = contract.console_key("test", found.machine.arn)
    assert found.console_uri.endswith(key)
    assert store.read(key).startswith(b"booting")


def test_E9_a_console_that_comes_late_is_waited_for(controller, fleet, store, submit, clock):
    """EC2 posts the console output a minute after the machine's death."""
    record = submit()
    controller.tick()
    lock_for(store, record)
    fleet.console = ConsoleOutput("", None)
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    assert outcome_of(controller, record) is None
    clock.at += 60
    assert outcome_of(controller, record) is None
    fleet.console = ConsoleOutput(marker_of(record), clock.at)

    assert outcome_of(controller, record).outcome is Outcome.SUCCEEDED


def test_E3_E9_a_console_that_never_comes_ends_the_wait_after_five_minutes(
    controller, fleet, store, submit, clock
):
    """Power is lost between exit and report, and EC2 never posts the console output."""
    record = submit()
    controller.tick()
    lock_for(store, record)
    fleet.console = ConsoleOutput("", None)
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    assert outcome_of(controller, record) is None
    clock.at += 301

    found = outcome_of(controller, record)
    assert (found.outcome, found.budget) == ("lost_status", "none")
    assert found.console_uri is None


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (AccessError("ec2:GetConsoleOutput", "denied."), False),
        (AwsUnavailableError("ec2:GetConsoleOutput", "503"), True),
    ],
)
def test_a_console_that_may_not_be_read_holds_up_nothing(
    controller, fleet, store, submit, error, waits
):
    record = submit()
    controller.tick()
    lock_for(store, record)
    fleet.console = error
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    found = outcome_of(controller, record)

    assert (found is None) is waits
    assert any("no console output" in line for line in controller.story_of(name_of(record))) or (
        found.outcome is Outcome.LOST_STATUS
    )


def test_a_reason_that_decides_needs_no_console_but_keeps_it(controller, fleet, store, submit):
    record = submit()
    controller.tick()
    lock_for(store, record)
    fleet.console = ConsoleOutput("last boot", 0.0)
    fleet.set("i-0", "terminated", reason="Server.SpotInstanceTermination")

    found = outcome_of(controller, record)

    assert found.outcome is Outcome.SPOT_INTERRUPTED
    assert store.read(contract.console_key("test", found.machine.arn)) == b"last boot"


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("Client.UserInitiatedShutdown", "channel_conflict"),
        ("Client.InstanceInitiatedShutdown", "succeeded"),
    ],
)
def test_R22_a_report_of_a_machine_that_was_ended_is_compared_with_its_console(
    controller, fleet, store, submit, clock, reason, outcome
):
    """Somebody writes a success with our nonce and ends the machine."""
    record = submit()
    controller.tick()
    lock_for(store, record)
    report(store, record, "i-0")
    fleet.console = ConsoleOutput(marker_of(record, exit_code=143), clock.at)
    fleet.set("i-0", "terminated", reason=reason)

    found = outcome_of(controller, record)

    assert (found.outcome, found.budget) == (outcome, "none")
    assert (found.console_uri is not None) is (outcome == "channel_conflict")


def test_a_success_is_not_held_up_by_a_console_that_may_not_be_read(
    controller, fleet, store, submit
):
    record = submit()
    controller.tick()
    report(store, record, "i-0")
    fleet.console = AccessError("ec2:GetConsoleOutput", "denied.")
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")

    assert outcome_of(controller, record).outcome is Outcome.SUCCEEDED


def test_a_host_that_stays_impaired_is_ended_after_ten_minutes(
    controller, fleet, store, submit, clock
):
    record = submit(max_runtime="5h")
    controller.tick()
    lock_for(store, record)
    fleet.impaired = {"i-0"}
    for _ in range(11):
        clock.at += 60
        controller.tick()
    assert fleet.terminated == []
    clock.at += 60
    controller.tick()
    assert fleet.terminated == ["i-0"]
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")

    found = outcome_of(controller, record)

    assert found.outcome is Outcome.LOST_STATUS
    assert "impaired" in found.reason


def test_a_host_that_recovers_is_left_alone(controller, fleet, store, submit, clock):
    record = submit(max_runtime="5h")
    controller.tick()
    lock_for(store, record)
    for minute in range(30):
        fleet.impaired = {"i-0"} if minute % 6 else set()
        clock.at += 61
        controller.tick()

    assert fleet.terminated == []


def test_E8_a_machine_that_stays_shutting_down_is_asked_again_by_force(
    controller, fleet, store, submit, clock
):
    """The machine never comes out of shutting-down."""
    record = submit()
    controller.tick()
    report(store, record, "i-0")
    fleet.set("i-0", "shutting-down")
    controller.tick()
    clock.at += 599
    assert outcome_of(controller, record) is None
    assert fleet.forced == []
    clock.at += 2
    assert outcome_of(controller, record) is None
    assert fleet.forced == ["i-0"]
    clock.at += 5
    controller.tick()
    assert fleet.forced == ["i-0"]
    clock.at += 60
    controller.tick()
    assert fleet.forced == ["i-0", "i-0"]
    fleet.set("i-0", "terminated")

    assert outcome_of(controller, record).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("Client.UserInitiatedShutdown", "killed"),
        ("Server.ScheduledStop", "infra_failed"),
        ("Server.SpotInstanceShutdown", "spot_interrupted"),
        ("Client.InstanceInitiatedShutdown", "lost_status"),
    ],
)
def test_R13_E6_a_stopped_machine_is_terminated_and_judged_by_why_it_stopped(
    controller, fleet, store, submit, reason, outcome
):
    """Somebody, EC2 or a drifted shutdown behaviour stops the instance instead of ending it."""
    record = submit()
    controller.tick()
    lock_for(store, record)
    fleet.set("i-0", "stopped", reason=reason)
    controller.tick()
    assert fleet.terminated == ["i-0"]
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")

    assert outcome_of(controller, record).outcome == outcome


@pytest.mark.parametrize(
    ("has_lock", "has_report", "outcome"),
    [(True, True, "succeeded"), (True, False, "lost_status"), (False, False, "never_started")],
)
def test_O6_when_ec2_has_forgotten_the_machine_the_bucket_decides(
    controller, fleet, store, submit, clock, has_lock, has_report, outcome
):
    """Airflow was down for hours; EC2's record of the machine is gone."""
    record = submit()
    controller.tick()
    arn = fleet.machines["i-0"].arn
    if has_lock:
        lock_for(store, record)
    if has_report:
        report(store, record, "i-0")
    fleet.machines.clear()
    clock.at += 3 * 3_600
    found = None
    for _ in range(5):
        clock.at += 61
        found = found or outcome_of(controller, record)

    assert found.outcome == outcome
    assert found.machine.arn == arn


def test_L16_a_launch_of_two_days_ago_is_not_asked_for_again(
    controller, fleet, store, submit, clock
):
    """The client token is older than EC2 remembers it; another controller takes over."""
    record = submit(max_runtime="5d")
    controller.tick()
    lock_for(store, record)
    clock.at += 48 * 3_600
    heir = Controller(store, lambda *_: fleet)
    fleet.tokens.clear()

    for _ in range(3):
        heir.tick()
        clock.at += 61

    assert len(fleet.requests) == 1
    assert heir.machine_of(name_of(record)) == "i-0"
