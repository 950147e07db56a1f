"""What the reaper's task does beside ending machines: abandoned attempts, long waits, alerts."""

import json
import runpy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_ephemeral_ec2.hooks.reaper_store import ReaperStore
from airflow_ephemeral_ec2.model.identity import TaskIdentity, name_jobkey
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.queue import QueueState, Unavailable
from airflow_ephemeral_ec2.model.reap import (
    Finding,
    SeenMachine,
    Sighting,
    Sightings,
    Suspicion,
)
from airflow_ephemeral_ec2.operators import reap
from airflow_ephemeral_ec2.operators.reap import EphemeralEC2ReapOperator
from airflow_ephemeral_ec2.operators.reap_news import News

CONTEXT = {"ti": SimpleNamespace(log_url="https://airflow/log"), "dag": None}


class Postcard(BaseNotifier):
    """A notifier as a provider would write it."""

    template_fields = ("text",)

    def __init__(self, sent, text="{{ ephemeral_ec2.reason }}"):
        super().__init__()
        self.sent, self.text = sent, text

    def notify(self, context):
        self.sent.append((self.text, context["ephemeral_ec2"]))


class Broken(Postcard):
    def notify(self, context):
        raise RuntimeError("no mail server")


@pytest.fixture
def airflow(monkeypatch):
    """What Airflow says of all task instances; an exception is raised."""
    known = SimpleNamespace(states={})

    def list_states(dag_id, task_id):
        if isinstance(known.states, Exception):
            raise known.states
        return known.states

    monkeypatch.setattr(reap, "list_task_states", list_states)
    return known


@pytest.fixture
def run(deployment, airflow, store):
    store.read_secret()

    def run(**arguments):
        return EphemeralEC2ReapOperator(task_id="reap", **arguments).execute(CONTEXT)

    return run


@pytest.fixture
def submit(store, make_record):
    def submit(run_id="run 1", **changes):
        identity = TaskIdentity("payer_acme", run_id, "claims", -1)
        jobkey = name_jobkey(store.read_secret(), store.environment, identity)
        record = store.write_launch(make_record(jobkey=jobkey, **changes))
        store.write_entry(plan_entry(record))
        return record

    return submit


@pytest.fixture
def volumes(deployment):
    """Two volumes of ours that nothing uses, seen by the reaper two hours ago."""
    tags = [{"Key": "ephemeral-ec2:environment", "Value": "test"}]
    made = [
        deployment.ec2.create_volume(
            AvailabilityZone="us-east-1a",
            Size=8,
            TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
        )["VolumeId"]
        for _ in range(2)
    ]
    yield made
    for volume in deployment.ec2.describe_volumes()["Volumes"]:
        if volume["VolumeId"] in made:
            deployment.ec2.delete_volume(VolumeId=volume["VolumeId"])


def seen_long_ago(store, ids):
    sighting = Sighting(reason=Suspicion.LEFT_OVER, first_seen=1_000.0)
    ReaperStore(store, "test").write_sightings(
        "us-east-1", Sightings(of=dict.fromkeys(ids, sighting), passed_at=1_000.0)
    )


def test_K5_an_attempt_whose_task_is_over_is_ended_on_the_second_pass(
    run, submit, store, airflow, deployment
):
    """The task was marked failed while no triggerer and no worker could hear it."""
    record = submit()
    airflow.states = {("run 1", -1): "failed"}

    first = run()
    asked_at_first = store.list_queue().kills
    second = run()

    name = f"{record.jobkey}-a1"
    assert (first["abandoned"], asked_at_first) == ([], frozenset())
    assert second["abandoned"] == [name]
    assert store.read_kill(name).by == "the reaper (task failed)"
    assert store.read_start_lock(record).revoked == "cancelled"


@pytest.mark.parametrize("answers", [("failed", "queued"), ("failed", None), (None, "failed")])
def test_one_look_at_airflow_ends_nothing(run, submit, store, airflow, answers):
    submit()
    for state in answers:
        airflow.states = {("run 1", -1): state} if state else RuntimeError("no database")
        assert run()["abandoned"] == []

    assert store.list_queue().kills == frozenset()


def test_a_dry_run_ends_no_attempt(run, submit, store, airflow):
    submit()
    airflow.states = {("run 1", -1): "failed"}

    for _ in range(3):
        run(dry_run=True)

    assert store.list_queue().kills == frozenset()
    assert list(store.list_keys("test/reaper/")) == []


def test_orphans_are_told_once_to_every_notifier_and_a_broken_one_stops_nothing(
    run, store, volumes, deployment
):
    seen_long_ago(store, volumes)
    sent = []
    notifiers = [Broken([]), Postcard(sent, "{{ no_such_thing.at_all }}"), Postcard(sent)]

    result = run(on_orphan=notifiers)

    left = {one["VolumeId"] for one in deployment.ec2.describe_volumes()["Volumes"]}
    assert left & set(volumes) == set()
    assert sorted(result["orphans"]) == sorted(volumes)
    assert [text for text, _ in sent] == [payload["reason"] for _, payload in sent]
    assert {payload["reason"].split()[0] for _, payload in sent} == set(volumes)
    assert {(p["event"], p["link"]) for _, p in sent} == {("orphan", "https://airflow/log")}
    assert run(on_orphan=notifiers)["orphans"] == []
    assert len(sent) == 2


def test_whoever_waits_too_long_is_told_once_per_attempt(run, submit, store, airflow):
    submit()
    airflow.states = {("run 1", -1): "deferred"}
    sent = []

    for _ in range(3):
        run(waiting_longer_than=timedelta(hours=2), on_waiting=[Postcard(sent)])

    [(text, payload)] = sent
    assert text.startswith("waits for ")
    assert (payload["payer"], payload["job"], payload["attempt"]) == ("acme", "claims", 1)
    assert (payload["event"], payload["business_date"]) == ("waiting", "2026-03-01")
    assert "/s3/buckets/" in payload["job_link"]
    assert payload["job_link"].endswith("/a1/")


def test_an_orphan_is_told_with_the_date_of_its_job(submit, store):
    record = submit()
    machine = SeenMachine("i-1", "running", "acme", "claims", record.jobkey, "1", 9e6, 60.0)
    news = News(store, "us-east-1")

    told = news.of_orphan(Finding("i-1", Suspicion.TOO_OLD, "too old", machine), "us-east-1")
    strange = replace(machine, jobkey="f" * 40)
    unknown = news.of_orphan(Finding("i-2", Suspicion.TOO_OLD, "too old", strange), "us-east-1")

    assert (told["payer"], told["business_date"], told["attempt"]) == ("acme", "2026-03-01", 1)
    assert record.jobkey in told["job_link"]
    assert (unknown["payer"], unknown["business_date"], unknown["job_link"]) == ("acme", None, None)


def test_a_quota_that_holds_launches_up_is_told_once_a_day(run, store):
    until = store.clock.now() + 3_600
    refused = {
        "aws_default/us-east-1/quota/standard/spot": Unavailable(
            until=until, code="MaxSpotInstanceCountExceeded"
        ),
        "aws_default/us-east-1/quota/g/on-demand": Unavailable(until=1.0, code="VcpuLimitExceeded"),
        "aws_default/us-east-1/m7i.large/subnet-0a1/spot": Unavailable(
            until=until, code="InsufficientInstanceCapacity"
        ),
    }
    _, etag = store.read_state()
    store.write_state(QueueState(unavailable=refused), etag)
    sent = []

    for _ in range(2):
        run(on_quota=[Postcard(sent)])

    [(text, payload)] = sent
    assert text.startswith("the spot vCPU quota of standard instances in us-east-1 is reached")
    assert (payload["event"], payload["payer"]) == ("quota", None)


def test_whoever_waits_for_less_is_not_told(run, submit, airflow):
    submit()
    airflow.states = {("run 1", -1): "deferred"}
    sent = []

    run(waiting_longer_than=timedelta(days=99_999), on_waiting=[Postcard(sent)])

    assert sent == []


def test_a_lifecycle_rule_that_deletes_too_early_is_named(run, store):
    rule = {
        "ID": "too-eager",
        "Status": "Enabled",
        "Filter": {"Prefix": "test/jobs/"},
        "Expiration": {"Days": 7},
    }
    store.s3.put_bucket_lifecycle_configuration(
        Bucket=store.bucket, LifecycleConfiguration={"Rules": [rule]}
    )

    [problem] = run()["retention"]

    assert "'too-eager'" in problem
    assert "allowed: after 400 days or more" in problem


def test_the_result_is_counts_and_ids_that_xcom_can_hold(run):
    assert json.loads(json.dumps(run()))["machines"] == 0


def test_the_ready_dag_makes_one_pass_at_a_time_and_catches_nothing_up():
    path = Path(__file__).parents[3] / "dags" / "ephemeral_ec2_reaper.py"

    dag = runpy.run_path(str(path))["dag"]

    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    every = dag.schedule if hasattr(dag, "schedule") else dag.schedule_interval  # Airflow 2
    assert every == timedelta(minutes=5)
    assert [type(task) for task in dag.tasks] == [EphemeralEC2ReapOperator]
