"""Facts come from the lock file, and are looked up only where it is silent."""

import dataclasses

import pytest

from airflow_ephemeral_ec2.exceptions import CodeMissingError
from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder, find_instance_facts, open_attempt
from airflow_ephemeral_ec2.hooks.endings import AdmissionTimes, write_ending
from airflow_ephemeral_ec2.model.identity import Step, TaskIdentity
from airflow_ephemeral_ec2.model.outcome import Budget, Kill, Outcome, Verdict
from airflow_ephemeral_ec2.model.spec import CodeFacts, ImageFacts, InstanceFacts, Limits, LockFile

SSM = "ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
AMI = "ami-0123456789abcdef0"
IMAGE = ImageFacts(
    architecture="x86_64", root_device="/dev/xvda", data_devices=("/dev/sdb",), image_id=AMI
)
KNOWN = InstanceFacts(vcpus=2, memory_mib=8192, architecture="x86_64")


class ScriptedFleet:
    """Answers what EC2 would, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def find_account(self):
        return "123456789012"

    def resolve_image(self, ami):
        self.asked.append(ami)
        return AMI

    def image_facts(self, image_id):
        self.asked.append(image_id)
        return IMAGE.model_copy(update={"root_device": "/dev/sda1"})

    def instance_facts(self, names):
        self.asked += names
        return dict.fromkeys(names, KNOWN)

    def find_attempt(self, jobkey, attempt):
        return []

    def terminate(self, instance_ids):
        assert list(instance_ids) == []


@pytest.fixture
def fleet():
    return ScriptedFleet()


@pytest.fixture
def make_order(make_spec):
    def make(epoch="e1", lock=None, **changes):
        return LaunchOrder(
            spec=make_spec(ami=SSM, **changes),
            lock=lock or LockFile(images={SSM: IMAGE}),
            table="payers.yaml",
            table_version="t",
            limits=Limits(vcpus=96),
            identity=TaskIdentity("d", "r", "t"),
            epoch=epoch,
            business_date="2026-03-01",
        )

    return make


def test_the_lock_file_is_asked_first(fleet, make_spec):
    lock = LockFile(instance_types={"m7i.large": KNOWN.model_copy(update={"vcpus": 77})})

    facts = find_instance_facts(fleet, make_spec(), lock)

    assert facts["m7i.large"].vcpus == 77
    assert facts["m6i.large"].vcpus == 2
    assert fleet.asked == ["m6i.large"]


def test_L23_the_ami_is_resolved_once_and_pinned(store, fleet, make_order):
    """The SSM parameter moves after the first look-up."""
    opened = open_attempt(store, fleet, make_order())

    assert fleet.asked.count(SSM) == 1
    assert opened.record.image_id == AMI
    assert opened.record.root_device == "/dev/xvda"
    assert opened.record.data_devices == ("/dev/sdb",)
    assert AMI not in fleet.asked


def test_an_ami_that_the_lock_file_does_not_know_is_looked_up(store, fleet, make_order):
    opened = open_attempt(store, fleet, make_order(lock=LockFile(code={})))

    assert opened.record.root_device == "/dev/sda1"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"data_devices": None}, id="an older push did not look at its volumes"),
        pytest.param(
            {"image_id": "ami-0fedcba9876543210"}, id="the parameter names another by now"
        ),
    ],
)
def test_E7_facts_that_may_miss_a_volume_are_looked_up(store, fleet, make_order, change):
    known = IMAGE.model_copy(update=change)

    opened = open_attempt(store, fleet, make_order(lock=LockFile(images={SSM: known})))

    assert opened.record.root_device == "/dev/sda1"
    assert opened.record.data_devices == ("/dev/sdb",)


def test_code_that_is_gone_from_the_bucket_is_missed_before_launch(store, fleet, make_order):
    code = {"jobs/": CodeFacts(sha256="c" * 64, size_bytes=1)}
    lock = LockFile(code=code, images={SSM: IMAGE})

    with pytest.raises(
        CodeMissingError, match=r"is not at s3://.*Run: ephemeral-ec2 push payers.yaml"
    ):
        open_attempt(store, fleet, make_order(lock=lock, code="jobs/"))


def test_L10_opening_twice_is_harmless(store, fleet, make_order):
    """Two workers open the same attempt."""
    first = open_attempt(store, fleet, make_order())
    second = open_attempt(store, fleet, make_order())

    assert (first.choice.step, second.choice.step) == (Step.OPEN, Step.ADOPT)
    assert second.record == first.record


def test_L1_L2_a_crash_between_the_writes_is_mended_by_the_retry(store, fleet, make_order):
    """The worker dies between its writes."""
    opened = open_attempt(store, fleet, make_order())
    store.close_entry(opened.name)

    open_attempt(store, fleet, make_order())

    assert store.list_queue().entries == {opened.name}


@pytest.mark.parametrize(
    "reason",
    ["timeout", "boot_timeout", "stuck_pending", "impaired", "stopped", "tampered", "no capacity"],
)
@pytest.mark.parametrize("is_revoked", [False, True], ids=["lock taken", "lock revoked"])
def test_a_retry_adopts_an_attempt_that_the_controller_is_ending(
    store, fleet, make_order, reason, is_revoked
):
    """The worker died; the retry must hear how it ended, not do the work again for nothing."""
    first = open_attempt(store, fleet, make_order())
    store.write_kill(first.name, Kill(reason))
    if is_revoked:
        store.revoke_start_lock(first.record, reason)

    second = open_attempt(store, fleet, make_order())

    assert (second.choice.step, second.choice.attempt) == (Step.ADOPT, 1)


@pytest.mark.parametrize("reason", ["cancelled", "superseded", "execution_timeout"])
def test_a_retry_does_not_adopt_an_attempt_that_was_given_up(store, fleet, make_order, reason):
    first = open_attempt(store, fleet, make_order())
    store.write_kill(first.name, Kill(reason, by="Airflow (task restarting)"))

    second = open_attempt(store, fleet, make_order())

    assert (second.choice.step, second.choice.attempt) == (Step.SUPERSEDE, 2)


def end(store, opened, outcome, budget=Budget.NONE):
    verdict = Verdict(outcome, "exit 65", budget)
    write_ending(store, opened.record, verdict, AdmissionTimes(None, None))


def retry(order):
    return dataclasses.replace(order, is_retry=True)


@pytest.mark.parametrize(
    ("outcome", "budget"),
    [
        (Outcome.JOB_FAILED, Budget.NONE),
        (Outcome.JOB_FAILED, Budget.JOB),
        (Outcome.TAMPERED, Budget.NONE),
    ],
)
def test_a_failure_that_no_worker_lived_to_tell_is_told_by_the_retry(
    store, fleet, make_order, outcome, budget
):
    """The row allows no retry; the worker that was to say so died."""
    first = open_attempt(store, fleet, make_order(job_retries=0))
    end(store, first, outcome, budget)

    second = open_attempt(store, fleet, retry(make_order(job_retries=0)))

    assert (second.choice.step, second.choice.attempt) == (Step.RETURN, 1)


@pytest.mark.parametrize(
    ("outcome", "budget"),
    [
        (Outcome.JOB_FAILED, Budget.JOB),
        (Outcome.NEVER_STARTED, Budget.INFRA),
        (Outcome.KILLED, Budget.NONE),
        (Outcome.SUPERSEDED, Budget.NONE),
    ],
)
def test_what_may_be_tried_again_is(store, fleet, make_order, outcome, budget):
    changes = {"job_retries": 1, "infra_retries": 1}
    first = open_attempt(store, fleet, make_order(**changes))
    end(store, first, outcome, budget)

    second = open_attempt(store, fleet, retry(make_order(**changes)))

    assert (second.choice.step, second.choice.attempt) == (Step.OPEN, 2)


def test_a_failure_is_tried_again_after_a_clear(store, fleet, make_order):
    first = open_attempt(store, fleet, make_order(job_retries=0))
    end(store, first, Outcome.JOB_FAILED)

    second = open_attempt(store, fleet, retry(make_order("e2", job_retries=0)))

    assert (second.choice.step, second.choice.attempt) == (Step.OPEN, 2)


@pytest.mark.parametrize("words", ["cancelled", "cancelled by Airflow (task failed)"])
def test_an_attempt_whose_start_lock_a_person_revoked_is_not_adopted(
    store, fleet, make_order, words
):
    """The controller had asked for its end before the person did."""
    first = open_attempt(store, fleet, make_order())
    store.write_kill(first.name, Kill("boot_timeout"))
    store.revoke_start_lock(first.record, words)

    second = open_attempt(store, fleet, make_order())

    assert (second.choice.step, second.choice.attempt) == (Step.SUPERSEDE, 2)


def test_a_worker_that_was_suspended_queues_nothing_that_has_ended_meanwhile(
    store, fleet, make_order
):
    """Another worker has run the same task instance before this one writes its queue entry."""
    write, others = store.write_entry, []

    def write_late(entry):
        if not others:
            others.append(open_attempt_of_another())
        write(entry)

    def open_attempt_of_another():
        others.append("under way")
        opened = open_attempt(store, fleet, make_order())
        verdict = Verdict(Outcome.SUCCEEDED, "exit 0")
        write_ending(store, opened.record, verdict, AdmissionTimes(None, None))
        store.close_entry(opened.name)
        return opened

    store.write_entry = write_late

    opened = open_attempt(store, fleet, make_order())

    assert (opened.choice.step, opened.choice.attempt) == (Step.RETURN, 1)
    assert store.list_queue().entries == frozenset()
