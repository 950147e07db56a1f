"""First writer wins, everywhere, and a lost answer is recognised."""

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError

from airflow_ephemeral_ec2.exceptions import AccessError, AwsUnavailableError, BucketError
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.model.identity import PastAttempt
from airflow_ephemeral_ec2.model.outcome import Kill, Outcome, Verdict
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.queue import QueueState
from airflow_ephemeral_ec2.model.record import Times, conclude


@pytest.fixture
def store(moto_store):
    """What moto checks counts here."""
    return moto_store


class LosesAnswers:
    """An S3 client that does what it is asked and then loses the answer, once."""

    def __init__(self, s3):
        self._s3 = s3
        self.losses = 1

    def __getattr__(self, name):
        return getattr(self._s3, name)

    def put_object(self, **arguments):
        answer = self._s3.put_object(**arguments)
        if self.losses:
            self.losses -= 1
            raise ReadTimeoutError(endpoint_url="http://s3")
        return answer


class FailsBeforehand(LosesAnswers):
    def put_object(self, **arguments):
        raise ReadTimeoutError(endpoint_url="http://s3")


class Refuses:
    """An S3 client that answers with an error, some times or always, and else does its work."""

    def __init__(self, s3, code, status, times=1_000):
        self._s3, self.asked, self._times = s3, 0, times
        answer = {
            "Error": {"Code": code, "Message": "no"},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }
        self._error = ClientError(answer, "S3")

    def __getattr__(self, name):
        def call(**arguments):
            self.asked += 1
            if self.asked <= self._times:
                raise self._error
            return getattr(self._s3, name)(**arguments)

        return call


def test_the_first_launch_record_wins_and_both_writers_get_it(store, make_record):
    first = make_record(env={"BY": "first"})

    assert store.write_launch(first) == first
    assert store.write_launch(make_record(env={"BY": "second"})) == first


def test_the_secret_is_made_once(store):
    assert store.read_secret() == store.read_secret()
    assert len(store.read_secret()) == 32


def test_the_last_attempt_is_found_by_number_not_by_name(store, make_record):
    for attempt in (1, 2, 9, 10):
        store.write_launch(make_record(attempt=attempt, epoch=f"e{attempt}"))

    assert store.last_attempt("0" * 40) == PastAttempt(10, "e10", None)


def test_an_ended_attempt_is_not_open(store, make_record):
    record = store.write_launch(make_record())
    store.write_outcome(conclude(record, Verdict(Outcome.KILLED, "x"), Times(requested=0.0)))

    assert store.last_attempt(record.jobkey) == PastAttempt(1, "e1", "killed")


def test_an_outcome_is_written_once(store, make_record):
    record = store.write_launch(make_record())
    times = Times(requested=0.0)
    store.write_outcome(conclude(record, Verdict(Outcome.SUCCEEDED, "exit 0"), times))

    second = store.write_outcome(conclude(record, Verdict(Outcome.KILLED, "late"), times))

    assert second.outcome is Outcome.SUCCEEDED


def test_history_is_kept_without_the_result(store, make_record):
    record = store.write_launch(make_record(push_result=True))
    store.write_outcome(
        conclude(
            record,
            Verdict(Outcome.SUCCEEDED, "exit 0"),
            Times(requested=0.0),
            fields={"result": {"member": "4711"}},
        )
    )

    [key] = store.list_keys("test/history/acme/claims/2026-03-01/")
    assert key.endswith("-a1-succeeded.json")
    assert b"4711" not in store.read(key)


def test_whoever_takes_the_start_lock_first_keeps_it(store, make_record):
    record = store.write_launch(make_record())

    assert store.revoke_start_lock(record, "cancelled") is True
    assert store.revoke_start_lock(record, "timeout") is True
    assert store.read_start_lock(record).revoked == "cancelled"


def test_a_taken_start_lock_cannot_be_revoked(store, make_record):
    record = store.write_launch(make_record())
    store.write_new(
        f"test/jobs/{record.jobkey}/a1/start-lock-{record.nonce}.json", b'{"instance_id": "i-1"}'
    )

    assert store.revoke_start_lock(record, "cancelled") is False


def test_the_queue_state_is_compared_before_it_is_set(store):
    etag = store.write_state(QueueState(next_sequence=2), None)

    assert store.write_state(QueueState(next_sequence=3), None) is None
    assert store.write_state(QueueState(next_sequence=3), '"other"') is None
    assert store.write_state(QueueState(next_sequence=3), etag) is not None
    assert store.read_state()[0].next_sequence == 3


def test_a_write_whose_answer_was_lost_is_recognised_as_ours(store, s3):
    lossy = JobStore(LosesAnswers(s3), store.bucket, "test")

    etag = lossy.write_state(QueueState(next_sequence=7), None)

    assert etag == store.read_state()[1]


def test_a_write_that_never_arrived_is_not_ours(store, s3):
    dead = JobStore(FailsBeforehand(s3), store.bucket, "test")

    assert dead.write_state(QueueState(next_sequence=7), None) is None


def test_a_record_of_another_kind_is_named(store, make_record):
    store.write_new("test/jobs/x/a1/launch.json", b"{}")

    with pytest.raises(BucketError, match=r"not a LaunchRecord of this version: \d+ errors"):
        store.read_launch("x", 1)


def test_a_write_that_s3_cannot_take_now_says_so(store, s3):
    dead = JobStore(FailsBeforehand(s3), store.bucket, "test")

    with pytest.raises(AwsUnavailableError, match="ReadTimeoutError"):
        dead.write_new("test/x", b"")


def test_kills_are_seen_beside_the_entries(store, make_record):
    entry = plan_entry(make_record())
    store.write_entry(entry)
    store.write_kill(entry.name, Kill("cancelled", "me"))

    listing = store.list_queue()

    assert listing.entries == listing.kills == {entry.name}
    assert store.read_kill(entry.name) == Kill("cancelled", "me")
    store.close_entry(entry.name)
    assert store.list_queue().entries == frozenset()


def test_O14_an_outcome_whose_write_lost_its_answer_is_surfaced_as_it_is(store, s3, make_record):
    """The answer of the outcome's write is lost, and whoever wrote it dies."""
    record = store.write_launch(make_record())
    times = Times(requested=0.0)
    lossy = JobStore(LosesAnswers(s3), store.bucket, "test")
    with pytest.raises(AwsUnavailableError):
        lossy.write_outcome(conclude(record, Verdict(Outcome.SUCCEEDED, "exit 0"), times))

    found = store.write_outcome(conclude(record, Verdict(Outcome.KILLED, "late"), times))

    assert found.outcome is Outcome.SUCCEEDED
    [history] = store.list_keys("test/history/")
    assert history.endswith("-succeeded.json")


def test_a_revocation_whose_answer_was_lost_counts_the_second_time(store, s3, make_record):
    record = store.write_launch(make_record())
    lossy = JobStore(LosesAnswers(s3), store.bucket, "test")
    with pytest.raises(AwsUnavailableError):
        lossy.revoke_start_lock(record, "cancelled")

    assert lossy.revoke_start_lock(record, "cancelled") is True


def test_a_launch_record_whose_write_lost_its_answer_is_still_the_one(store, s3, make_record):
    lossy = JobStore(LosesAnswers(s3), store.bucket, "test")
    with pytest.raises(AwsUnavailableError):
        lossy.write_launch(make_record(env={"BY": "first"}))

    assert lossy.write_launch(make_record(env={"BY": "second"})).spec.env == {"BY": "first"}


def test_a_conflict_of_two_writers_is_asked_again(store, s3):
    busy = Refuses(s3, "ConditionalRequestConflict", 409, times=2)

    assert JobStore(busy, store.bucket, "test").write_new("test/x", b"1") is True
    assert busy.asked == 3
    assert store.read("test/x") == b"1"


def test_a_conflict_without_end_is_worth_asking_later(store, s3):
    busy = Refuses(s3, "ConditionalRequestConflict", 409)

    with pytest.raises(AwsUnavailableError):
        JobStore(busy, store.bucket, "test").write_new("test/x", b"1")
    assert busy.asked == 5


def test_O8_a_403_is_no_404(store, s3):
    """GetObject is denied."""
    denied = JobStore(Refuses(s3, "AccessDenied", 403), store.bucket, "test")

    assert store.read("test/x") is None
    assert store.exists("test/x") is False
    with pytest.raises(AccessError, match="Grant"):
        denied.read("test/x")
    with pytest.raises(AccessError):
        denied.exists("test/x")


def test_O9_a_5xx_is_unknown_not_absent(store, s3):
    """Every call is answered with 503."""
    slow = JobStore(Refuses(s3, "SlowDown", 503), store.bucket, "test")

    for ask in (slow.read, slow.exists, slow.read_document):
        with pytest.raises(AwsUnavailableError):
            ask("test/x")


def test_every_write_carries_a_checksum_whatever_boto3_was_told(store):
    config = Config(request_checksum_calculation="when_required")
    s3 = boto3.client("s3", region_name="us-east-1", config=config)
    sent = []
    s3.meta.events.register(
        "before-send.s3.PutObject", lambda request, **_: sent.append(request.headers)
    )
    strict = JobStore(s3, store.bucket, "test")

    strict.write_new("test/x", b"1")
    strict.write_state(QueueState(), None)

    named = "x-amz-sdk-checksum-algorithm"
    assert [headers[named] for headers in sent] == [b"SHA256", b"SHA256"]
