"""Facts of instance types and AMIs, from what EC2 and SSM answer."""

import boto3
import pytest
from moto import mock_aws

from airflow_ephemeral_ec2.config_table import load_table
from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder, find_instance_facts, open_attempt
from airflow_ephemeral_ec2.hooks.clients import Clients
from airflow_ephemeral_ec2.hooks.code_push import find_facts, pack_code, push_table, write_lock
from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.model.identity import TaskIdentity
from airflow_ephemeral_ec2.model.spec import InstanceFacts, Limits, LockFile

AMI = "ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
KNOWN = InstanceFacts(vcpus=77, memory_mib=8192, architecture="x86_64")


@pytest.fixture(scope="module")
def s3():
    """An AWS of this file's own: a mock that outlives it would reach into the tests after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        with mock_aws():
            yield boto3.client("s3", region_name="us-east-1")


@pytest.fixture(scope="module")
def connection(s3):
    session = boto3.Session(region_name="us-east-1")
    return Clients(lambda service, config: session.client(service, config=config))


@pytest.fixture
def fleet_for(connection):
    return lambda conn, region: Fleet(connection, "test", region)


@pytest.fixture
def fleet(fleet_for):
    return fleet_for("aws_default", "us-east-1")


@pytest.fixture
def make_order(make_spec):
    def make(ami):
        return LaunchOrder(
            spec=make_spec(ami=ami),
            lock=LockFile(),
            table="payers.yaml",
            table_version="t",
            limits=Limits(vcpus=96),
            identity=TaskIdentity("d", "r", "t"),
            epoch="e1",
            business_date="2026-03-01",
        )

    return make


def test_facts_are_those_of_ec2(make_spec, fleet_for):
    types, images = find_facts([make_spec(ami=AMI)], fleet_for)

    assert {name: facts.vcpus for name, facts in types.items()} == {"m6i.large": 2, "m7i.large": 2}
    assert images[AMI].architecture == "x86_64"


def test_an_instance_type_that_ec2_does_not_have_is_named(make_spec, fleet_for):
    with pytest.raises(ConfigurationError, match=r"m7i\.3xlarge"):
        find_facts([make_spec(ami=AMI, instance_types=["m7i.3xlarge"])], fleet_for)


def test_a_pushed_table_finds_its_code_in_the_lock_file(tmp_path, store, fleet_for):
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "claims.py").write_text("print('claims')\n")
    path = tmp_path / "payers.yaml"
    path.write_text(
        "version: 1\naws: {region: us-east-1}\n"
        f"defaults: {{ami: '{AMI}', code: jobs/, subnets: [subnet-1], security_groups: [sg-1],\n"
        "  instance_profile: machine, instance_types: [m7i.large]}\n"
        "jobs: {claims: {command: [python3, claims.py]}}\npayers: {acme: {}}\n"
    )
    table = load_table(path)

    pushed = push_table(table, store, fleet_for)
    write_lock(table.lock_path, pushed.lock)

    assert load_table(path).lock == pushed.lock
    assert pushed.lock.code["jobs/"] == pack_code(jobs).facts


def test_what_the_lock_file_does_not_know_is_looked_up(fleet, make_spec):
    facts = find_instance_facts(fleet, make_spec(), LockFile(instance_types={"m7i.large": KNOWN}))

    assert {name: found.vcpus for name, found in facts.items()} == {"m7i.large": 77, "m6i.large": 2}


def test_an_instance_type_that_the_region_does_not_have_is_named(fleet, make_spec):
    with pytest.raises(ConfigurationError, match=r"m7i\.32xlarge"):
        find_instance_facts(fleet, make_spec(instance_types=["m7i.32xlarge"]), LockFile())


def test_an_ami_parameter_is_resolved_and_its_image_looked_up(store, fleet, make_order):
    opened = open_attempt(store, fleet, make_order(AMI))

    assert opened.record.image_id.startswith("ami-")
    assert opened.record.root_device == "/dev/xvda"


def test_an_unknown_ami_parameter_is_named(store, fleet, make_order):
    with pytest.raises(ConfigurationError, match="no such SSM parameter: /nope in us-east-1"):
        open_attempt(store, fleet, make_order("ssm:/nope"))
