"""What the operator asks of AWS, what it hands to the triggerer, and how it ends."""

import json
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.contract import code_key
from airflow_ephemeral_ec2.exceptions import AccessError, BucketError, JobEndedError
from airflow_ephemeral_ec2.model.outcome import Budget, Outcome, Verdict
from airflow_ephemeral_ec2.model.record import Machine, Times, conclude, may_copy_log
from airflow_ephemeral_ec2.model.task_context import PLACE_KEY
from airflow_ephemeral_ec2.operators import killing
from airflow_ephemeral_ec2.operators.ec2 import EphemeralEC2Operator
from airflow_ephemeral_ec2.triggers.ec2 import HAS_ON_KILL
from airflow_ephemeral_ec2.triggers.task_state import ask_within

MACHINE = Machine(
    instance_id="i-1",
    arn="arn:aws:ec2:us-east-1:1:instance/i-1",
    instance_type="m7i.large",
    availability_zone="us-east-1a",
    capacity_type="on-demand",
    state_reason="Client.InstanceInitiatedShutdown",
)


@pytest.fixture
def make_operator(table):
    def make(**changes):
        arguments = {"payer": "acme", "job": "claims", "config_table": str(table)} | changes
        dag = DAG("payer_acme", schedule=None)
        return EphemeralEC2Operator(task_id="claims", dag=dag, **arguments)

    return make


@pytest.fixture
def calls(deployment):
    """AWS calls as they happen, by their API names."""
    seen = []
    for client in (deployment.s3, deployment.ec2, deployment.launch, deployment.ssm):
        client.meta.events.register(
            "before-call.*.*", lambda model, **_: seen.append(model.name), unique_id="recorder"
        )
    yield seen
    for client in (deployment.s3, deployment.ec2, deployment.launch, deployment.ssm):
        client.meta.events.unregister("before-call.*.*", unique_id="recorder")


def defer(operator, context):
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    return deferred.value


def end(store, trigger, verdict, **fields):
    """Write the outcome that the controller would have written."""
    launch = store.read_launch(trigger.jobkey, trigger.attempt)
    times = Times(requested=launch.requested_at)
    root = f"s3://{store.bucket}/test/machines/{MACHINE.arn}/"
    fields = {"wall_seconds": 11.0} | fields
    store.write_outcome(conclude(launch, verdict, times, MACHINE, fields, root=root))
    return {"jobkey": trigger.jobkey, "attempt": trigger.attempt, "outcome": verdict.outcome}


def failed(code, budget=Budget.NONE):
    return Verdict(Outcome.JOB_FAILED, f"exit {code}", budget), {"exit_code": code}


def test_a_refusal_to_read_the_outcome_is_tried_again(make_operator, make_context, deployment):
    """The job has ended: who fails for good now, and is cleared, does its work a second time."""
    trigger = defer(make_operator(), make_context()).trigger
    refusal = {"Error": {"Code": "AccessDenied", "Message": "no"}}

    def refuse(**_):
        raise ClientError(refusal, "GetObject")

    deployment.s3.meta.events.register("before-call.s3.GetObject", refuse, unique_id="refusal")
    event = {"jobkey": trigger.jobkey, "attempt": 1, "outcome": "succeeded"}
    try:
        with pytest.raises(AccessError, match="AccessDenied"):
            make_operator().execute_complete(make_context(), event)
    finally:
        deployment.s3.meta.events.unregister("before-call.s3.GetObject", unique_id="refusal")


@pytest.fixture
def pushed_today(table, deployment):
    """A lock file whose SSM parameters name the same AMIs still."""
    path = table.with_name("payers.lock.json")
    lock = json.loads(path.read_text())
    for ami, facts in lock["images"].items():
        found = deployment.ssm.get_parameter(Name=ami.removeprefix("ssm:"))["Parameter"]["Value"]
        facts.update(image_id=found, data_devices=[])
    path.write_text(json.dumps(lock))


@pytest.mark.usefixtures("pushed_today")
def test_execute_makes_three_writes_and_one_parameter_look_up(
    make_operator, make_context, calls, store
):
    store.read_secret()
    calls.clear()

    defer(make_operator(), make_context())

    writes = [name for name in calls if name.startswith(("Put", "Delete"))]
    assert writes == ["PutObject"] * 3
    assert calls.count("GetParameter") == 1
    assert not [name for name in calls if name.startswith(("Describe", "Run"))]


def test_what_the_triggerer_gets_is_small_and_has_no_phi(make_operator, make_context, deployment):
    deferred = defer(make_operator(), make_context())

    path, arguments = deferred.trigger.serialize()
    assert path == "airflow_ephemeral_ec2.triggers.ec2.EphemeralEC2Trigger"
    assert arguments["attempt"] == 1
    assert arguments["end_in_triggerer"] is True
    assert len(str(arguments)) < 500
    assert deferred.timeout is None


def test_what_an_alert_needs_is_written_before_the_task_waits(
    make_operator, make_context, deployment
):
    context = make_context()

    defer(make_operator(), context)

    place = context["pushed"][PLACE_KEY]
    assert (place["payer"], place["job"], place["attempt"]) == ("acme", "claims", 1)
    assert place["business_date"] == "2026-03-01"


def test_L3_a_retry_after_a_crash_adopts_the_open_attempt(
    make_operator, make_context, deployment, store
):
    """The worker died after the launch."""
    first = defer(make_operator(), make_context()).trigger

    second = defer(make_operator(), make_context()).trigger

    assert (second.jobkey, second.attempt) == (first.jobkey, first.attempt)
    assert len(store.list_queue().entries) == 1


def test_L12_a_cleared_task_supersedes_the_open_attempt(
    make_operator, make_context, deployment, store
):
    """The task is cleared while its machine lives."""
    first = defer(make_operator(), make_context()).trigger

    second = defer(make_operator(), make_context(max_tries=5)).trigger

    assert second.attempt == 2
    assert store.read_launch(first.jobkey, 2).supersedes == 1
    assert store.read_kill(f"{first.jobkey}-a1").reason == "superseded"


def test_O14_O12_a_success_that_airflow_was_not_told_is_not_run_again(
    make_operator, make_context, deployment, store
):
    """The worker died before Airflow heard of the success."""
    trigger = defer(make_operator(), make_context()).trigger
    end(store, trigger, Verdict(Outcome.SUCCEEDED, "exit 0"), exit_code=0)

    value = make_operator().execute(make_context())

    assert (value["outcome"], value["attempt"]) == ("succeeded", 1)


def test_a_success_returns_where_everything_is(make_operator, make_context, deployment, store):
    context = make_context()
    trigger = defer(make_operator(), context).trigger
    event = end(store, trigger, Verdict(Outcome.SUCCEEDED, "exit 0"), exit_code=0)

    value = make_operator().execute_complete(context, event)

    assert value["exit_code"] == 0
    assert value["instance_id"] == "i-1"
    assert value["instance_type"] == "m7i.large"
    assert value["seconds"] == 11.0
    assert value["log"].endswith("instance/i-1/log/")
    assert value["report"].endswith("instance/i-1/report.json")
    assert "result" not in value


def test_a_failure_says_all_that_is_needed_and_is_not_retried(
    make_operator, make_context, deployment, store
):
    context = make_context()
    trigger = defer(make_operator(), context).trigger
    verdict, fields = failed(65)
    event = end(store, trigger, verdict, **fields)

    with pytest.raises(AirflowFailException) as error:
        make_operator().execute_complete(context, event)

    text = str(error.value)
    assert "acme/claims 2026-03-01, attempt 1: job failed, exit 65 after 11s on i-1" in text
    assert "Not retried: 65 is not in retry_exit_codes." in text
    assert "What to do: docs/outcomes.md#exit-65" in text
    assert context["pushed"]["return_value"]["exit_code"] == 65


def test_an_ending_worth_a_retry_is_one_for_airflow(make_operator, make_context, deployment, store):
    context = make_context()
    trigger = defer(make_operator(), context).trigger
    event = end(store, trigger, Verdict(Outcome.SPOT_INTERRUPTED, "gone", Budget.INFRA))

    with pytest.raises(JobEndedError, match=r"Retry 1 of 2 \(infra_retries\)"):
        make_operator().execute_complete(context, event)
    again = defer(make_operator(), context).trigger

    assert again.attempt == 2


def test_a_spent_budget_is_final_whatever_airflow_would_still_try(
    make_operator, make_context, deployment, store
):
    context = make_context()
    lost = Verdict(Outcome.SPOT_INTERRUPTED, "gone", Budget.INFRA)
    for _ in range(2):
        end(store, defer(make_operator(), context).trigger, lost)
    event = end(store, defer(make_operator(), context).trigger, lost)

    with pytest.raises(AirflowFailException, match=r"infra_retries \(2\) spent"):
        make_operator().execute_complete(context, event)


def test_a_skip_code_skips_the_task(make_operator, make_context, deployment, store):
    context = make_context()
    trigger = defer(make_operator(), context).trigger
    event = end(store, trigger, Verdict(Outcome.SKIPPED, "exit 99"), exit_code=99)

    with pytest.raises(AirflowSkipException, match="exit 99"):
        make_operator().execute_complete(context, event)


def test_missing_code_fails_before_anything_is_recorded(
    make_operator, make_context, deployment, store
):
    with pytest.raises(AirflowFailException, match=r"Run: ephemeral-ec2 push .*payers.yaml"):
        make_operator(job="member").execute(make_context())

    assert store.list_queue().entries == frozenset()


def test_pushed_code_is_pinned_by_its_hash(make_operator, make_context, deployment, store):
    store.write_new(code_key("test", "c" * 64), b"tar")

    trigger = defer(make_operator(job="member"), make_context()).trigger

    assert store.read_launch(trigger.jobkey, 1).code_sha256 == "c" * 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"job": "claim"}, "no such job: 'claim'; did you mean 'claims'?"),
        ({"payer": "acm"}, "no such payer: 'acm'; did you mean 'acme'?"),
        ({"business_date": "01.03.2026"}, "not a date; write it like 2026-03-01"),
    ],
)
def test_a_wrong_argument_names_the_nearest_right_one(
    make_operator, make_context, deployment, changes, message
):
    with pytest.raises(AirflowFailException) as error:
        make_operator(**changes).execute(make_context())

    assert message in str(error.value)


def test_missing_settings_are_named_all_at_once(make_operator, make_context, monkeypatch):
    for name in ("ENVIRONMENT", "BUCKET", "REGION"):
        monkeypatch.delenv(f"AIRFLOW__EPHEMERAL_EC2__{name}", raising=False)

    with pytest.raises(AirflowFailException) as error:
        make_operator().execute(make_context())

    for option in ("environment", "bucket", "region"):
        assert f"{option} is missing" in str(error.value)


def test_a_later_try_that_is_refused_may_have_a_machine_to_adopt_and_asks_again(
    make_operator, make_context, deployment, monkeypatch
):
    monkeypatch.setenv("AIRFLOW__EPHEMERAL_EC2__BUCKET", "no-such-bucket")
    context = make_context()
    context["ti"].try_number = 2

    with pytest.raises(BucketError):
        make_operator().execute(context)


def test_a_missing_bucket_is_one_clear_line(make_operator, make_context, deployment, monkeypatch):
    monkeypatch.setenv("AIRFLOW__EPHEMERAL_EC2__BUCKET", "no-such-bucket")

    with pytest.raises(
        AirflowFailException, match=r"bucket 'no-such-bucket': NoSuchBucket\. Create"
    ):
        make_operator().execute(make_context())


@pytest.mark.parametrize(
    ("policy", "outcome", "copied"),
    [
        ("none", Outcome.JOB_FAILED, False),
        ("none", Outcome.SUCCEEDED, False),
        ("on_failure", Outcome.JOB_FAILED, True),
        ("on_failure", Outcome.SUCCEEDED, False),
        ("all", Outcome.SUCCEEDED, True),
    ],
)
def test_the_jobs_output_is_copied_only_where_the_row_allows_it(make_spec, policy, outcome, copied):
    assert may_copy_log(make_spec(log_to_airflow=policy), outcome) is copied


def test_the_jobs_output_is_in_no_exception(make_operator, make_context, deployment, store):
    trigger = defer(make_operator(), make_context()).trigger
    verdict, fields = failed(65)
    event = end(store, trigger, verdict, **fields)
    store.write_new(f"test/machines/{MACHINE.arn}/log/000001", b"patient 4711\n")

    with pytest.raises(AirflowFailException) as error:
        make_operator().execute_complete(make_context(), event)

    assert "4711" not in str(error.value)


def test_a_task_without_retries_says_that_airflow_will_not_try_again(
    make_operator, make_context, deployment, store
):
    context = make_context(max_tries=0)
    trigger = defer(make_operator(), context).trigger
    event = end(store, trigger, Verdict(Outcome.SPOT_INTERRUPTED, "gone", Budget.INFRA))

    with pytest.raises(AirflowFailException, match="the task has no retries left in Airflow"):
        make_operator().execute_complete(context, event)


def pulling(context):
    context["ti"].xcom_pull = lambda task_ids, key, map_indexes: context["pushed"].get(key)
    return context


@pytest.mark.parametrize(
    ("error", "tries", "killed"),
    [("Trigger timeout", 2, True), ("Trigger failure", 2, False), ("Trigger failure", 0, True)],
)
def test_O13_a_deferral_that_fails_ends_the_machine_unless_a_retry_will_adopt_it(
    make_operator, make_context, deployment, store, error, tries, killed
):
    """The deferral times out, or the trigger fails."""
    context = pulling(make_context(max_tries=tries))
    trigger = defer(make_operator(), context).trigger

    with pytest.raises(Exception, match=r"."):
        make_operator().resume_execution("__fail__", {"error": error}, context)

    found = store.read_kill(f"{trigger.jobkey}-a1")
    assert (found is not None) is killed


@pytest.fixture
def airflow_says(monkeypatch):
    """Set what Airflow answers for the state of the task; an exception is raised."""

    def says(answer):
        def read(identity):
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(killing, "read_task_state", read)

    return says


def test_a_retry_does_not_adopt_an_attempt_that_is_being_ended(
    make_operator, make_context, deployment, store, airflow_says
):
    airflow_says("restarting")
    operator, context = make_operator(), pulling(make_context())
    first = defer(operator, context).trigger
    operator.on_kill()

    second = defer(make_operator(), make_context()).trigger

    assert (first.attempt, second.attempt) == (1, 2)
    assert store.read_launch(first.jobkey, 2).supersedes == 1


def test_a_task_killed_before_it_knew_its_attempt_leaves_none_behind(
    make_operator, make_context, deployment, store, airflow_says
):
    airflow_says("failed")
    operator, context = make_operator(), pulling(make_context())
    trigger = defer(operator, context).trigger
    operator._hold.opened = None

    operator.on_kill()

    assert store.read_kill(f"{trigger.jobkey}-a1").reason == "cancelled"


@pytest.mark.parametrize(
    ("state", "tries", "killed"),
    [
        ("restarting", 2, True),
        ("failed", 2, True),
        ("success", 2, True),
        ("removed", 2, True),
        ("skipped", 2, True),
        ("none", 2, False),
        ("scheduled", 2, False),
        ("queued", 0, False),
        ("up_for_retry", 2, False),
        ("deferred", 0, False),
        ("running", 2, False),
        ("running", 0, True),
        (RuntimeError("the API server is down"), 0, False),
    ],
)
def test_a_worker_that_is_told_to_stop_ends_only_what_airflow_gave_up(
    make_operator, make_context, deployment, store, airflow_says, state, tries, killed
):
    """SIGTERM by the user, by a restarted scheduler or by a node that drains."""
    airflow_says(state)
    operator, context = make_operator(), pulling(make_context(max_tries=tries))
    trigger = defer(operator, context).trigger

    operator.on_kill()

    assert (store.read_kill(f"{trigger.jobkey}-a1") is not None) is killed


def test_a_worker_leaves_an_attempt_that_a_later_try_holds(
    make_operator, make_context, deployment, store, airflow_says
):
    airflow_says("running")
    operator, context = make_operator(), pulling(make_context(max_tries=0))
    trigger = defer(operator, context).trigger
    context["pushed"][PLACE_KEY] = context["pushed"][PLACE_KEY] | {"holder": "another"}

    operator.on_kill()

    assert store.read_kill(f"{trigger.jobkey}-a1") is None


def test_an_execution_timeout_ends_the_attempt_without_asking(
    make_operator, make_context, deployment, store, airflow_says
):
    airflow_says(RuntimeError("must not matter"))
    operator = make_operator()
    trigger = defer(operator, make_context(max_tries=2)).trigger

    with ExitStack() as stack:
        stack.push(lambda *_: operator.on_kill() or True)  # runs while the error is handled
        raise AirflowTaskTimeout

    assert store.read_kill(f"{trigger.jobkey}-a1").reason == "cancelled"


@pytest.mark.parametrize("left", [600.0, -3.0], ids=["time left", "none left"])
def test_a_deferred_task_takes_the_end_of_its_execution_timeout_along(
    make_operator, make_context, deployment, store, left
):
    context = make_context()
    context["ti"].start_date = datetime.now(UTC) - timedelta(seconds=900 - left)

    trigger = defer(make_operator(execution_timeout=timedelta(minutes=15)), context).trigger

    assert trigger.ends_at == pytest.approx(time.time() + left, abs=5)


def test_a_task_without_execution_timeout_has_no_end(make_operator, make_context, deployment):
    assert defer(make_operator(), make_context()).trigger.ends_at is None


def test_an_execution_timeout_fails_the_task_as_airflows_own(
    make_operator, make_context, deployment
):
    event = {"jobkey": "k", "attempt": 2, "timed_out": True}
    operator = make_operator(execution_timeout=timedelta(seconds=20))

    with pytest.raises(
        AirflowTaskTimeout, match=r"acme/claims, attempt 2: the timeout \(0:00:20\)"
    ):
        operator.execute_complete(make_context(), event)


@pytest.mark.parametrize(
    "timeout",
    [
        timedelta(seconds=30),
        pytest.param(30, marks=pytest.mark.skipif(not HAS_ON_KILL, reason="Airflow 2")),
    ],
)
@pytest.mark.parametrize(
    ("execution_timeout", "seconds"), [(None, 30.0), (timedelta(seconds=20), 20.0)]
)
def test_the_trigger_minds_the_timeout_of_a_deferral_too(
    make_operator, make_context, deployment, timeout, execution_timeout, seconds
):
    """Airflow looks for those every 15 s only; a user's subclass gives one."""
    operator = make_operator(execution_timeout=execution_timeout)
    give = operator.defer
    operator.defer = lambda **deferral: give(**deferral | {"timeout": timeout})

    deferral = defer(operator, make_context())

    left = deferral.trigger.ends_at - time.time()
    assert seconds - 5 < left <= seconds + 5


def test_a_task_that_comes_back_too_late_ends_its_attempt(
    make_operator, make_context, deployment, store, monkeypatch
):
    """The triggerer was down at the deadline; Airflow 2 then calls ``on_kill``, nothing else."""
    context = pulling(make_context())
    trigger = defer(make_operator(), context).trigger
    resumed = make_operator()
    monkeypatch.setattr(killing, "get_current_context", lambda: context)

    resumed.on_kill()
    before = store.read_kill(f"{trigger.jobkey}-a1")
    with ExitStack() as stack:
        stack.push(lambda *_: resumed.on_kill() or True)  # runs while the error is handled
        raise AirflowTaskTimeout

    assert before is None
    assert "execution_timeout" in store.read_kill(f"{trigger.jobkey}-a1").by


def test_a_lock_held_by_the_interrupted_code_delays_the_answer_not_the_worker():
    held = threading.Lock()
    with held:
        assert ask_within(0.05, held.acquire) is None
