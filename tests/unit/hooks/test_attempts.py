"""Facts come from the lock file, and are looked up only where it is silent."""

import boto3
import pytest

from airflow_ephemeral_ec2.exceptions import CodeMissingError, ConfigurationError
from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder, find_instance_facts, open_attempt
from airflow_ephemeral_ec2.hooks.clients import Clients
from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.model.identity import Step, TaskIdentity
from airflow_ephemeral_ec2.model.spec import CodeFacts, ImageFacts, InstanceFacts, LockFile

SSM = "ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
IMAGE = ImageFacts(architecture="x86_64", root_device="/dev/xvda")
KNOWN = InstanceFacts(vcpus=2, memory_mib=8192, architecture="x86_64")


@pytest.fixture(scope="module")
def fleet(s3):
    session = boto3.Session(region_name="us-east-1")
    clients = Clients(lambda service, config: session.client(service, config=config))
    return Fleet(clients, "test", "us-east-1")


@pytest.fixture
def make_order(make_spec):
    def make(epoch="e1", lock=None, **changes):
        return LaunchOrder(
            spec=make_spec(ami=SSM, **changes),
            lock=lock or LockFile(images={SSM: IMAGE}),
            table="payers.yaml",
            table_version="t",
            limit_vcpus=96,
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


def test_an_instance_type_that_the_region_does_not_have_is_named(fleet, make_spec):
    with pytest.raises(ConfigurationError, match=r"m7i\.32xlarge"):
        find_instance_facts(fleet, make_spec(instance_types=["m7i.32xlarge"]), LockFile())


def test_the_ami_is_resolved_once_and_pinned(store, fleet, make_order):
    opened = open_attempt(store, fleet, make_order())

    assert opened.record.image_id.startswith("ami-")
    assert opened.record.root_device == "/dev/xvda"


def test_an_unknown_ami_parameter_is_named(store, fleet, make_order):
    with pytest.raises(ConfigurationError, match="no such SSM parameter: /nope in us-east-1"):
        open_attempt(
            store,
            fleet,
            make_order().__class__(**vars(make_order()) | {"spec": _spec(make_order, "ssm:/nope")}),
        )


def _spec(make_order, ami):
    return make_order().spec.model_copy(update={"ami": ami})


def test_code_that_is_gone_from_the_bucket_is_missed_before_launch(store, fleet, make_order):
    code = {"jobs/": CodeFacts(sha256="c" * 64, size_bytes=1)}
    lock = LockFile(code=code, images={SSM: IMAGE})

    with pytest.raises(
        CodeMissingError, match=r"is not at s3://.*Run: ephemeral-ec2 push payers.yaml"
    ):
        open_attempt(store, fleet, make_order(lock=lock, code="jobs/"))


def test_opening_twice_is_harmless(store, fleet, make_order):
    first = open_attempt(store, fleet, make_order())
    second = open_attempt(store, fleet, make_order())

    assert (first.choice.step, second.choice.step) == (Step.OPEN, Step.ADOPT)
    assert second.record == first.record


def test_a_crash_between_the_writes_is_mended_by_the_retry(store, fleet, make_order):
    opened = open_attempt(store, fleet, make_order())
    store.close_entry(opened.name)

    open_attempt(store, fleet, make_order())

    assert store.list_queue().entries == {opened.name}
