"""The task that takes files: in a run of a watcher, and waiting by itself."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import boto3
import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_ephemeral_ec2.sensors.files import EphemeralEC2FileSensor
from airflow_ephemeral_ec2.triggers.files import EphemeralEC2FileTrigger


@pytest.fixture
def landing(deployment, s3, store):
    """A queue and a bucket of its own beside the bucket of record."""
    name = store.bucket.replace("records", "landing")
    s3.create_bucket(Bucket=name)
    sqs = boto3.client("sqs", region_name="us-east-1")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    rule = {
        "QueueArn": f"arn:aws:sqs:us-east-1:123456789012:{name}",
        "Events": ["s3:ObjectCreated:*"],
    }
    s3.put_bucket_notification_configuration(
        Bucket=name, NotificationConfiguration={"QueueConfigurations": [rule]}
    )
    sqs.purge_queue(QueueUrl=url)
    return SimpleNamespace(
        url=url,
        sensor=make_sensor(name, url),
        poking=make_sensor(name, url, deferrable=False, poke_interval=0.01, timeout=0.05),
        drop=lambda key, body=b"x": s3.put_object(Bucket=name, Key=key, Body=body),
        batch=lambda: sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []),
    )


def make_sensor(bucket, url, **changes):
    return EphemeralEC2FileSensor(
        task_id="take",
        payer="acme",
        files=f"s3://{bucket}/acme/*.csv",
        queue_url=url,
        region="us-east-1",
        **changes,
    )


def with_asset_events(context, *batches):
    events = [SimpleNamespace(extra={"payload": {"message_batch": batch}}) for batch in batches]
    return context | {"triggering_asset_events": {"files": events}}


def run_trigger(url):
    async def first():
        trigger = EphemeralEC2FileTrigger(url, "aws_default", "us-east-1")
        return (await anext(trigger.run())).payload

    return asyncio.run(first())


def test_a_run_of_the_watcher_starts_one_run_for_each_date(landing, make_context):
    landing.drop("acme/a_20260301.csv")
    first = landing.batch()
    landing.drop("acme/b_20260302.csv")
    context = with_asset_events(make_context(), first, landing.batch())

    runs = landing.sensor.execute(context)

    assert [one["conf"] for one in runs] == [
        {"business_date": day, "files": {"count": 1, "late": False}}
        for day in ("2026-03-01", "2026-03-02")
    ]
    assert len({one["trigger_run_id"] for one in runs}) == 2
    assert landing.sensor.execute(context) == runs  # a retry
    assert landing.sensor.execute(make_context()) == runs  # a retry that has lost its events


def test_a_run_of_the_watcher_without_a_file_that_counts_is_skipped(landing, make_context):
    landing.drop("acme/empty_20260301.csv", b"")

    with pytest.raises(AirflowSkipException, match="no file that counts"):
        landing.sensor.execute(with_asset_events(make_context(), landing.batch()))


def test_otherwise_it_waits_in_the_triggerer_and_goes_on_waiting(landing, make_context):
    with pytest.raises(TaskDeferred) as deferred:
        landing.sensor.execute(make_context())
    landing.drop("acme/empty.csv", b"")

    name, arguments = deferred.value.trigger.serialize()
    event = run_trigger(landing.url)
    with pytest.raises(TaskDeferred):
        landing.sensor.execute_complete(make_context(), event)

    assert name.endswith("triggers.files.EphemeralEC2FileTrigger")
    assert EphemeralEC2FileTrigger(**arguments).serialize() == (name, arguments)


def test_what_the_trigger_brings_is_taken(landing, make_context):
    landing.drop("acme/a_20260301.csv")

    [run] = landing.sensor.execute_complete(make_context(), run_trigger(landing.url))

    assert run["trigger_run_id"].startswith("files__2026-03-01__")
    assert landing.batch() == []


def test_late_files_say_so(landing, make_context):
    landing.drop("acme/a_20260301.csv")
    landing.sensor.execute(with_asset_events(make_context(), landing.batch()))
    landing.drop("acme/b_20260301.csv")
    later = make_context()
    later["ti"].run_id = "manual__2"

    [run] = landing.sensor.execute(with_asset_events(later, landing.batch()))

    assert run["conf"]["files"] == {"count": 1, "late": True}


def test_a_queue_that_cannot_be_read_fails_the_task_with_its_reason(make_context, deployment):
    event = run_trigger("https://sqs.us-east-1.amazonaws.com/123456789012/not-there")

    with pytest.raises(AirflowException, match="not-there"):
        make_sensor("landing", "x").execute_complete(make_context(), event)


def test_without_a_triggerer_it_pokes(landing, make_context):
    landing.drop("acme/a_20260301.csv")

    found = landing.poking.poke(make_context())

    assert found.is_done
    assert found.xcom_value[0]["conf"]["business_date"] == "2026-03-01"


def test_a_new_run_with_the_name_of_an_old_one_takes_nothing_of_it(landing, make_context):
    landing.drop("acme/a_20260301.csv")
    landing.sensor.execute(with_asset_events(make_context(), landing.batch()))
    anew = make_context()
    anew["dag_run"].data_interval_end = datetime(2026, 4, 1, tzinfo=UTC)

    with pytest.raises(TaskDeferred):
        landing.sensor.execute(anew)
