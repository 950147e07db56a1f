"""What a run's form does to each of its tasks, before anything is launched."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    Asset,
    TaskDeferred,
)

from airflow_ephemeral_ec2.model.identity import TaskIdentity, name_jobkey
from airflow_ephemeral_ec2.model.outcome import Outcome, Verdict
from airflow_ephemeral_ec2.model.record import Times, conclude
from airflow_ephemeral_ec2.model.run_request import ALL_FIELDS
from airflow_ephemeral_ec2.operators import run_form
from airflow_ephemeral_ec2.operators.assets import EphemeralEC2AssetOperator
from airflow_ephemeral_ec2.operators.ec2 import EphemeralEC2Operator

EMPTY = dict.fromkeys(ALL_FIELDS) | {"jobs": [], "instance_types": {}, "dry_run": False}


@pytest.fixture
def states(monkeypatch):
    """Set what Airflow answers for the tasks of this run: {task id: [state of each part]}."""
    found = {"member": ["success"]}
    asked = []

    def answer(dag_id, run_id, task_id):
        asked.append((dag_id, run_id, task_id))
        return found.get(task_id, [])

    monkeypatch.setattr(run_form, "list_part_states", answer)
    found["asked"] = asked
    return found


@pytest.fixture
def told(monkeypatch):
    """What the task writes into its log."""
    lines = []
    log = SimpleNamespace(
        info=lambda text, *arguments: lines.append(text % arguments), warning=lambda text: None
    )
    monkeypatch.setattr(EphemeralEC2Operator, "log", log)
    return lines


@pytest.fixture
def cleared():
    """How often the task was cleared."""
    return [0]


@pytest.fixture
def run(table, make_context, deployment, states, cleared):
    """Run the task of a job of the form's DAG; returns its deferral."""

    def run(job="claims", run_type="manual", conf=None, run_id="manual__1", **filled):
        context = make_context(**(EMPTY | filled))
        context["dag_run"].run_type, context["dag_run"].run_id = run_type, run_id
        context["ti"].run_id = run_id
        context["task"] = SimpleNamespace(retries=2 - cleared[0])
        context["dag_run"].conf = filled if conf is None else conf
        operator = EphemeralEC2Operator(
            task_id=job,
            dag=DAG("payer_acme", schedule=None),
            payer="acme",
            job=job,
            config_table=str(table),
        )
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        return deferred.value.trigger

    return run


def launch(store, trigger):
    return store.read_launch(trigger.jobkey, trigger.attempt)


def test_an_empty_form_changes_nothing(run, store, states):
    record = launch(store, run())

    assert record.spec.instance_types == ("m7i.large",)
    assert record.spec.priority == 500
    assert (record.priority_reason, record.order_override) == ("", "")
    assert record.is_backfill is False
    assert states["asked"] == [("payer_acme", "manual__1", "member")]


def test_what_a_run_overrides_is_launched_and_recorded_with_its_reason(run, store):
    filled = {
        "instance_types": {"claims": "m7i.large"},
        "priority": 9999,
        "ignore_order": True,
        "reason": "late file",
    }

    record = launch(store, run(**filled))

    assert record.spec.priority == 9999
    assert (record.priority_reason, record.order_override) == ("late file", "late file")
    assert "priority 9999 for this run: late file" in record.announce(is_adopted=False)
    assert "order is not waited for in this run: late file" in record.announce(is_adopted=False)


def test_another_machine_than_the_tables_is_launched(run, store, table):
    table.with_name("payers.lock.json").write_text(
        table.with_name("payers.lock.json").read_text().replace('"m7i.large"', '"m7i.4xlarge"')
    )

    record = launch(store, run(instance_types={"claims": ["m7i.4xlarge"]}))

    assert [one.instance_type for one in record.placements] == ["m7i.4xlarge"]


def test_a_backfill_is_recorded_as_one(run, store):
    assert launch(store, run(run_type="backfill")).is_backfill is True


@pytest.mark.parametrize("job", ["claims", "member"])
def test_one_date_for_all_runs_of_a_backfill_launches_nothing(run, store, job):
    filled = {"business_date": "2026-03-05", "run_type": "backfill", "job": job}

    said = refuse(run, AirflowFailException, **filled)

    assert "parameter business_date '2026-03-05': in a backfill" in said
    assert store.list_queue().entries == frozenset()


def refuse(run, kind, **filled):
    with pytest.raises(kind) as error:
        run(**filled)
    return str(error.value)


def test_a_job_that_is_not_among_those_of_the_run_is_skipped(run, store, states):
    said = refuse(run, AirflowSkipException, jobs=["member"])

    assert said == "acme/claims 2026-03-01: not among the jobs of this run (member)"
    assert store.list_queue().entries == frozenset()
    assert states["asked"] == []


@pytest.mark.parametrize("job", ["claims", "member"])
@pytest.mark.parametrize(
    ("filled", "message"),
    [
        ({"jobs": ["clams"]}, "did you mean 'claims'?"),
        ({"priority": 9}, "parameter priority: needs a reason"),
        ({"dry_rn": True}, "did you mean 'dry_run'?"),
        ({"jobs": ["claims"], "instance_types": {"member": "m7i.large"}}, "is not among jobs"),
    ],
)
def test_a_form_that_is_filled_in_wrongly_fails_every_task_and_launches_nothing(
    run, store, job, filled, message
):
    assert message in refuse(run, AirflowFailException, job=job, **filled)
    assert store.list_queue().entries == frozenset()


def test_a_dry_run_that_airflow_is_set_to_ignore_launches_nothing(run, store):
    """``dag_run_conf_overrides_params = False`` leaves the parameters at their defaults."""
    said = refuse(run, AirflowFailException, conf={"dry_run": True})

    assert "parameter dry_run: Airflow ignores what was filled in" in said
    assert store.list_queue().entries == frozenset()


@pytest.fixture
def limit(table):
    """Write limits, and how the machines of all jobs are paid for, into the table."""

    def limit(limits, capacity_type="on-demand"):
        text = table.read_text().replace("limits: {vcpus: 96}", f"limits: {limits}")
        table.write_text(text.replace("defaults:", f"defaults:\n  capacity_type: {capacity_type}"))

    return limit


@pytest.mark.parametrize("job", ["claims", "member"])
@pytest.mark.parametrize(
    ("limits", "capacity_type", "named"),
    [
        ("{vcpus: 96}", "on-demand", "limits.vcpus is 96"),
        ("{on_demand: 90}", "on-demand", "limits.on_demand is 90"),
        ("{spot: 80}", "spot", "limits.spot is 80"),
        ("{spot: 80}", "spot-then-on-demand", "limits.spot is 80"),
        ("{on_demand: 90}", "spot-then-on-demand", "limits.on_demand is 90"),
        ("{payers: {acme: 64}}", "on-demand", "limits.payers.acme is 64"),
        ("{jobs: {claims: 32}}", "on-demand", "limits.jobs.claims is 32"),
        ("{vcpus: 96, jobs: {claims: 32}}", "spot", "limits.vcpus is 96, limits.jobs.claims is 32"),
    ],
)
def test_a_machine_over_a_limit_could_never_start_and_no_task_launches(
    run, store, limit, job, limits, capacity_type, named
):
    limit(limits, capacity_type)

    said = refuse(run, AirflowFailException, job=job, instance_types={"claims": "c7i.48xlarge"})

    assert f"claims: c7i.48xlarge has 192 vCPUs, in the table {named}: it could never start" in said
    assert store.list_queue().entries == frozenset()


@pytest.mark.parametrize(
    ("limits", "capacity_type"),
    [("{spot: 2}", "on-demand"), ("{on_demand: 2}", "spot"), ("{jobs: {member: 2}}", "spot")],
)
def test_a_limit_of_others_refuses_nothing(run, store, limit, table, limits, capacity_type):
    limit(limits, capacity_type)
    lock = table.with_name("payers.lock.json")
    facts = '"c7i.48xlarge": {"vcpus": 192, "memory_mib": 9, "architecture": "x86_64"}, "m7i.large"'
    lock.write_text(lock.read_text().replace('"m7i.large"', facts))

    assert launch(store, run(instance_types={"claims": "c7i.48xlarge"})).vcpus == 192


@pytest.mark.parametrize(
    ("parts", "is_skipped"),
    [(["skipped"], True), (["skipped", "success", "skipped"], False), (["skipped"] * 3, True)],
)
def test_a_job_after_one_that_skipped_itself_is_skipped(run, store, states, parts, is_skipped):
    states["member"] = parts

    if not is_skipped:
        assert launch(store, run()).attempt == 1
        return
    said = refuse(run, AirflowSkipException)

    assert said == "acme/claims 2026-03-01: skipped, because member was skipped in this run"
    assert store.list_queue().entries == frozenset()


def test_a_job_that_was_left_out_is_not_one_that_skipped_itself(run, store, states):
    states["member"] = ["skipped"]

    assert launch(store, run(jobs=["claims"])).attempt == 1


def test_a_dag_of_ones_own_has_no_form_whatever_its_parameters_mean(
    table, make_context, deployment, states
):
    context = make_context(jobs="mine", priority="high", dry_run="no")
    operator = EphemeralEC2Operator(
        task_id="claims",
        dag=DAG("mine", schedule=None),
        payer="acme",
        job="claims",
        config_table=str(table),
    )

    with pytest.raises(TaskDeferred):
        operator.execute(context)

    assert states["asked"] == []


@pytest.fixture
def writes(deployment):
    seen = []
    deployment.s3.meta.events.register(
        "before-call.s3.*", lambda model, **_: seen.append(model.name), unique_id="writes"
    )
    yield seen
    deployment.s3.meta.events.unregister("before-call.s3.*", unique_id="writes")


def test_a_dry_run_shows_the_plan_asks_nobody_and_is_skipped(run, states, writes, told):
    states["member"] = ["skipped"]
    filled = {"priority": 9, "reason": "late", "ignore_order": True, "dry_run": True}

    said = refuse(run, AirflowSkipException, **filled)

    assert said == "acme/claims 2026-03-01: dry run; nothing was launched and nothing was written"
    assert writes == []
    for words in (
        "dry run of acme/claims 2026-03-01: nothing is launched",
        "after    acme/member 2026-03-01 success",
        "launch   1 m7i.large subnet-0a1",
        "uses     2 of 96 vCPU",
        "ends     at most 1h + 10m boot",
        "bytes    user data ",
        "runs     python3 claims.py",
        "buys     one machine, on-demand, 20 GiB of gp3",
        "priority 9 for this run: late",
        "order    not waited for in this run: late",
    ):
        assert words in "\n".join(told)


def test_a_dry_run_says_whether_the_code_was_pushed(run, told):
    refuse(run, AirflowSkipException, job="member", dry_run=True)

    assert "code sha256 cccccccccccc..., pushed" in "\n".join(told)


def test_a_dry_run_of_a_job_that_the_run_leaves_out_shows_no_plan(run, told):
    said = refuse(run, AirflowSkipException, jobs=["member"], dry_run=True)

    assert "not among the jobs" in said
    assert told == []


# -- what another run has done for the date -------------------------------------------------

NEW_IN_BACKFILL = {"run_type": "backfill", "run_id": "backfill__2026-03-01T00:00:00+00:00"}


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_new_run_of_a_backfill_does_nothing_twice(run, store, end, dry_run):
    done = end("claims", jobkey="d0e")

    said = refuse(run, AirflowSkipException, dry_run=dry_run, **NEW_IN_BACKFILL)

    assert done.jobkey == "d0e"
    assert "acme/claims 2026-03-01: has succeeded before (attempt 1 of d0e)" in said
    assert store.list_queue().entries == frozenset()


@pytest.mark.parametrize(
    ("outcome", "date"),
    [
        (Outcome.JOB_FAILED, "2026-03-01"),
        (Outcome.SKIPPED, "2026-03-01"),
        (Outcome.SUCCEEDED, "2026-03-02"),
    ],
)
def test_it_does_what_nobody_has_done(run, store, end, outcome, date):
    end("claims", outcome, jobkey="d0e", date=date)

    assert launch(store, run(**NEW_IN_BACKFILL)).attempt == 1


@pytest.mark.parametrize(
    ("again", "clearings"),
    [
        ({"run_type": "manual", "run_id": "manual__1"}, 0),
        (NEW_IN_BACKFILL | {"run_id": "scheduled__2026-03-01T02:00:00+00:00"}, 0),
        (NEW_IN_BACKFILL, 1),
    ],
)
def test_any_other_run_does_its_work_again(run, store, end, cleared, again, clearings):
    cleared[0] = clearings
    end("claims", jobkey="d0e")

    assert launch(store, run(**again)).attempt == 1


def test_a_try_that_has_an_attempt_goes_on_with_it(run, store, end):
    mine = run(**NEW_IN_BACKFILL)
    end("claims", jobkey="d0e")

    again = run(**NEW_IN_BACKFILL)

    assert (again.jobkey, again.attempt) == (mine.jobkey, 1)


@pytest.mark.parametrize("clearings", [0, 1])
@pytest.mark.parametrize("is_done", [True, False])
def test_who_was_left_out_because_it_is_done_takes_nothing_with_it(
    run, store, end, states, cleared, is_done, clearings
):
    states["member"], cleared[0] = ["skipped"], clearings
    if not is_done:
        refuse(run, AirflowSkipException, **NEW_IN_BACKFILL)
        return
    end("member", jobkey="d0e")

    assert launch(store, run(**NEW_IN_BACKFILL)).attempt == 1


def test_who_was_cleared_and_then_skipped_itself_takes_with_it_what_depends_on_it(
    run, store, end, states, cleared
):
    """Its success in another run says nothing of what this run was asked to do again."""
    states["member"], cleared[0] = ["skipped"], 1
    end("member", jobkey="d0e")
    identity = TaskIdentity("payer_acme", NEW_IN_BACKFILL["run_id"], "member")
    mine = name_jobkey(store.read_secret(), store.environment, identity)
    end("member", Outcome.SKIPPED, jobkey=mine)

    said = refuse(run, AirflowSkipException, **NEW_IN_BACKFILL)

    assert "skipped, because member was skipped in this run" in said


# -- assets ----------------------------------------------------------------------------------


class Events(dict):
    """What Airflow keeps for each outlet."""

    def __missing__(self, asset):
        self[asset] = SimpleNamespace(extra={})
        return self[asset]


def test_an_update_of_the_payers_asset_says_for_which_date(
    table, make_context, deployment, store, states
):
    ours, other = Asset("ephemeral-ec2://payer/acme"), Asset("s3://somewhere/else")
    context = make_context(**EMPTY) | {"outlet_events": Events()}
    operator = EphemeralEC2Operator(
        task_id="claims",
        dag=DAG("payer_acme", schedule=None),
        payer="acme",
        job="claims",
        config_table=str(table),
        outlets=[ours, other],
    )
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    trigger = deferred.value.trigger
    record = launch(store, trigger)
    times = Times(requested=record.requested_at)
    verdict = Verdict(Outcome.SUCCEEDED, "exit 0")
    store.write_outcome(conclude(record, verdict, times, None, {"exit_code": 0}, root="s3://b/"))

    operator.execute_complete(context, {"jobkey": trigger.jobkey, "attempt": 1, "outcome": "x"})

    expected = {"payer": "acme", "business_date": "2026-03-01"}
    assert context["outlet_events"][ours].extra == expected
    assert other not in context["outlet_events"]


@pytest.fixture
def run_asset_task():
    def run_asset_task(**filled):
        asset = Asset("ephemeral-ec2://payer/acme")
        task = EphemeralEC2AssetOperator(
            task_id="_asset",
            payer="acme",
            jobs=["member", "claims", "report"],
            after=["claims", "report"],
            outlets=[asset],
        )
        events = Events()
        dag_run = SimpleNamespace(
            logical_date=datetime(2026, 3, 1, tzinfo=UTC), partition_key=None, run_after=None
        )
        task.execute(
            {"params": EMPTY | filled, "dag_run": dag_run, "outlet_events": events, "ti": None}
        )
        return events[asset].extra

    return run_asset_task


def test_the_task_after_several_jobs_says_for_which_date(run_asset_task):
    assert run_asset_task() == {"payer": "acme", "business_date": "2026-03-01"}
    assert run_asset_task(business_date="2026-02-02")["business_date"] == "2026-02-02"
    assert run_asset_task(jobs=["claims", "report"])["payer"] == "acme"


def test_a_run_that_leaves_out_a_last_job_does_not_update_the_asset(run_asset_task):
    with pytest.raises(AirflowSkipException, match="acme 2026-03-01: this run leaves out report"):
        run_asset_task(jobs=["claims"])


def test_a_wrong_form_fails_there_too(run_asset_task):
    with pytest.raises(AirflowFailException, match="did you mean 'report'"):
        run_asset_task(jobs=["reprt"])
