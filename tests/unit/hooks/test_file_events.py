"""Who takes a file: one conditional write, whatever is delivered twice or dies half-way."""

import json
import uuid

import boto3
import pytest
from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.exceptions import AwsUnavailableError, RequestRefusedError
from airflow_ephemeral_ec2.hooks.file_events import DateFiles, FileGate, name_run
from airflow_ephemeral_ec2.hooks.file_queue import FileQueue
from airflow_ephemeral_ec2.hooks.landing_records import LandingRecords
from airflow_ephemeral_ec2.model.landing import Place

RUN, OTHER = name_run("payer_acme_files", "1"), name_run("payer_acme_files", "2")
FIRST = (DateFiles("2026-03-01", 1, 0),)


@pytest.fixture
def landing(s3, store):
    return Landing(s3, store)


class Landing:
    """A bucket that tells a queue of its files, and the gate that takes them."""

    def __init__(self, s3, store):
        self.s3, self.store = s3, store
        self.bucket = f"landing-{uuid.uuid4().hex[:12]}"
        s3.create_bucket(Bucket=self.bucket)
        self.sqs = boto3.client("sqs", region_name="us-east-1")
        url = self.sqs.create_queue(QueueName=self.bucket)["QueueUrl"]
        arn = f"arn:aws:sqs:us-east-1:123456789012:{self.bucket}"
        rule = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}
        s3.put_bucket_notification_configuration(
            Bucket=self.bucket, NotificationConfiguration={"QueueConfigurations": [rule]}
        )
        self.queue = FileQueue(self.sqs, url)
        self.queue.delete(one.receipt for one in self.queue.receive(0))  # the test event
        self.gate = self.make_gate(LandingRecords(store, "acme"))

    def make_gate(self, records):
        return FileGate(self.queue, records, self.s3, Place(self.bucket, "acme/", "*.csv"))

    def drop(self, name="members_20260301.csv", body=b"x"):
        self.s3.put_object(Bucket=self.bucket, Key=f"acme/{name}", Body=body)

    def receive(self):
        return self.queue.receive(0)

    def left(self):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue.url, AttributeNames=names)
        return sum(int(value) for value in found["Attributes"].values())


class DyingRecords(LandingRecords):
    """The process ends before its nth conditional write."""

    def __init__(self, store, payer, lives):
        super().__init__(store, payer)
        self.lives = lives

    def settle_taking(self, *words):
        self._live()
        return super().settle_taking(*words)

    def take(self, run, taken):
        self._live()
        return super().take(run, taken)

    def note_date(self, run, business_date):
        self._live()
        return super().note_date(run, business_date)

    def _live(self):
        if self.lives == 0:
            raise AwsUnavailableError("write", "gone")
        self.lives -= 1


def test_a_file_is_taken_and_its_message_deleted(landing):
    landing.drop()

    assert landing.gate.take(RUN, landing.receive()) == FIRST
    assert landing.left() == 0


def test_a_message_that_comes_again_is_known(landing):
    landing.drop()
    messages = landing.receive()
    landing.gate.take(RUN, messages)

    assert landing.gate.take(OTHER, messages) == ()


def test_the_same_bytes_sent_again_are_known_and_other_bytes_are_late(landing):
    landing.drop()
    landing.gate.take(RUN, landing.receive())
    landing.drop()
    again = landing.gate.take(OTHER, landing.receive())
    landing.drop(body=b"corrected")

    assert again == ()
    assert landing.gate.take(OTHER, landing.receive()) == (DateFiles("2026-03-01", 1, 1),)
    assert landing.left() == 0


def test_a_batch_with_several_dates_gives_each_its_own(landing):
    landing.drop("members_20260302.csv")
    landing.drop("members_20260301.csv")
    landing.drop("claims_20260301.csv")

    found = landing.gate.take(RUN, landing.receive())

    assert found == (DateFiles("2026-03-01", 2, 0), DateFiles("2026-03-02", 1, 0))


def test_what_does_not_count_is_deleted_and_said_without_its_name(landing, caplog):
    landing.drop("empty_20260301.csv", b"")
    landing.drop("members_20260301.csv.part")
    landing.drop("SMITH_20260301.txt")
    landing.drop("gone_20260301.csv")
    landing.s3.delete_object(Bucket=landing.bucket, Key="acme/gone_20260301.csv")
    landing.sqs.send_message(QueueUrl=landing.queue.url, MessageBody="hello")

    with caplog.at_level("INFO"):
        assert landing.gate.take(RUN, landing.receive()) == ()

    assert landing.left() == 0
    for reason in (
        "zero bytes",
        "under way",
        "not in files",
        "deleted since",
        "not an event of S3",
    ):
        assert reason in caplog.text
    assert "SMITH" not in caplog.text


def test_a_file_that_was_replaced_since_is_taken_by_its_own_event(landing):
    landing.drop(body=b"first")
    [old] = landing.receive()
    landing.drop(body=b"second")

    assert landing.gate.take(RUN, [old]) == ()
    assert landing.gate.take(RUN, landing.receive()) == FIRST


@pytest.mark.parametrize("lives", range(4))
def test_a_run_that_dies_between_any_two_writes_finishes_when_it_is_tried_again(landing, lives):
    landing.drop("a_20260301.csv")
    landing.drop("b_20260301.csv")
    messages = landing.receive()
    with pytest.raises(AwsUnavailableError):
        landing.make_gate(DyingRecords(landing.store, "acme", lives)).take(RUN, messages)
    assert landing.left() == 2

    found = landing.gate.resume(RUN) or landing.gate.take(RUN, messages)

    assert found == (DateFiles("2026-03-01", 2, 0),)
    assert landing.gate.resume(RUN) == found
    assert landing.left() == 0


def test_two_runs_with_the_same_messages_take_each_file_once(landing):
    landing.drop("a_20260301.csv")
    landing.drop("b_20260301.csv")
    messages = landing.receive()
    with pytest.raises(AwsUnavailableError):
        landing.make_gate(DyingRecords(landing.store, "acme", 2)).take(RUN, messages)

    other = landing.gate.take(OTHER, messages)
    first = landing.gate.resume(RUN)

    assert [one.count for one in (*first, *other)] == [1, 1]


class SlowRecords(LandingRecords):
    """Another run takes what this one has decided to take, just before it does."""

    def __init__(self, landing, payer):
        super().__init__(landing.store, payer)
        self._landing = landing

    def settle_taking(self, run, taking, number=1):
        settled = super().settle_taking(run, taking, number)
        for taken in settled.objects:
            LandingRecords(self._landing.store, "acme").take(OTHER, taken)
        return settled


@pytest.mark.parametrize("times", [1, 3])
def test_who_lost_all_files_to_another_run_goes_on_and_takes_the_next(landing, times):
    slow = landing.make_gate(SlowRecords(landing, "acme"))
    for number in range(times):
        landing.drop(f"{number}_20260301.csv")
        assert slow.take(RUN, landing.receive()) == ()
        assert slow.resume(RUN) == ()
    assert landing.left() == 0
    landing.drop("next_20260302.csv")

    found = landing.gate.take(RUN, landing.receive())

    assert found == (DateFiles("2026-03-02", 1, 0),)
    assert landing.gate.resume(RUN) == found
    assert landing.left() == 0


def test_two_tries_of_a_run_that_lost_its_files_take_the_same_next(landing):
    landing.drop("lost_20260301.csv")
    landing.make_gate(SlowRecords(landing, "acme")).take(RUN, landing.receive())
    landing.drop("a_20260302.csv")
    first = landing.gate.take(RUN, landing.receive())
    landing.drop("b_20260303.csv")

    assert landing.gate.take(RUN, landing.receive()) == first
    assert landing.left() == 1


def test_a_message_of_a_taken_file_stays_until_it_is_recorded(landing, monkeypatch):
    landing.drop()
    monkeypatch.setattr(landing.queue, "_sqs", FailingDelete(landing.sqs))

    with pytest.raises(AwsUnavailableError):
        landing.gate.take(RUN, landing.receive())

    assert landing.gate.records.read_taking(RUN) is not None


class FailingDelete:
    def __init__(self, sqs):
        self._sqs = sqs

    def __getattr__(self, name):
        return getattr(self._sqs, name)

    def delete_message(self, **_):
        raise ClientError(
            {"Error": {"Code": "ServiceUnavailable"}, "ResponseMetadata": {"HTTPStatusCode": 503}},
            "DeleteMessage",
        )


def test_the_records_hold_no_key(landing):
    landing.drop("SMITH_20260301.csv")
    landing.gate.take(RUN, landing.receive())

    keys = list(landing.store.list_keys("test/landed/acme/"))
    bodies = [landing.store.read(key) for key in keys]

    assert len(keys) == 3
    assert "SMITH" not in json.dumps(keys) + repr(bodies)


def test_a_queue_that_does_not_exist_is_named(landing):
    queue = FileQueue(landing.sqs, f"{landing.queue.url}-not")

    with pytest.raises(RequestRefusedError, match="receive from"):
        queue.receive(0)


def test_a_deleted_message_may_be_deleted_again(landing):
    landing.drop()
    receipts = [one.receipt for one in landing.receive()]

    landing.queue.delete(receipts)
    landing.queue.delete(receipts)
    landing.queue.delete(["nonsense"])

    assert landing.left() == 0
