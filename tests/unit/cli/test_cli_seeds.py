import pytest

from airflow_ephemeral_ec2.cli.given import Given, find_settings, is_airflow_here, uses_airflow
from airflow_ephemeral_ec2.cli.run import find_exit_code
from airflow_ephemeral_ec2.cli.seeds import find_secret_values, localize, plan_seeds
from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.model.outcome import Budget, Outcome, Verdict
from airflow_ephemeral_ec2.model.record import Times, conclude
from airflow_ephemeral_ec2.model.spec import LockFile


def seeds_of(*specs):
    return plan_seeds(specs, LockFile(), environment="local", bucket="records")


def test_everything_that_a_row_names_is_seeded(make_spec):
    spec = make_spec(
        job_role="acme-data",
        env={"DATA_BUCKET": "payer-data", "RUN_COUNTER": "s3://counters/runs"},
        secrets={"TOKEN": "secretsmanager:acme/token"},
    )

    (seed,) = seeds_of(spec)

    assert seed["subnets"] == ["subnet-0a1", "subnet-0b2"]
    assert seed["security_groups"] == ["sg-0c3"]
    assert seed["instance_profile"] == "payer-machine"
    assert seed["buckets"] == ["counters", "payer-data"]
    assert seed["images"] == {"ami-0123456789abcdef0": "x86_64"}
    assert seed["job_roles"]["acme-data"] == {
        "bucket": "payer-data",
        "read": ["incoming/acme/*", "payers/acme/*"],
        "write": ["payers/acme/*"],
        "secrets": ["acme/token"],
        "parameters": [],
    }


def test_each_region_and_profile_is_a_seed_of_its_own(make_spec):
    rows = [make_spec(), make_spec(region="eu-central-1"), make_spec(instance_profile="other")]

    assert [(s["region"], s["instance_profile"]) for s in seeds_of(*rows)] == [
        ("us-east-1", "payer-machine"),
        ("eu-central-1", "payer-machine"),
        ("us-east-1", "other"),
    ]


def test_roles_of_another_account_are_taken_by_their_names(make_spec):
    spec = make_spec(
        job_role="arn:aws:iam::999999999999:role/data/acme",
        instance_profile="arn:aws:iam::999999999999:instance-profile/machine",
        depends_on=["member"],
    )

    local = localize(spec)

    assert (local.job_role, local.instance_profile, local.depends_on) == ("acme", "machine", ())


def test_secrets_come_from_the_callers_environment(make_spec):
    spec = make_spec(secrets={"TOKEN": "ssm:/acme/token"})

    assert find_secret_values(spec, {"TOKEN": "t"}) == {"ssm:/acme/token": "t"}
    with pytest.raises(ConfigurationError, match="Set: TOKEN"):
        find_secret_values(spec, {})


@pytest.mark.parametrize(
    ("outcome", "job_code", "expected"),
    [
        (Outcome.SUCCEEDED, 0, 0),
        (Outcome.SUCCEEDED, 4, 0),
        (Outcome.JOB_FAILED, 65, 65),
        (Outcome.SKIPPED, 99, 99),
        (Outcome.NO_CAPACITY, None, 1),
        (Outcome.TAMPERED, 0, 1),
    ],
)
def test_the_exit_status_is_the_jobs_own(make_record, outcome, job_code, expected):
    verdict = Verdict(outcome, "why", Budget.NONE)
    found = conclude(make_record(), verdict, Times(requested=0.0), fields={"exit_code": job_code})

    assert find_exit_code(found) == expected


def test_options_win_over_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__EPHEMERAL_EC2__BUCKET", "from-environment")

    found = find_settings(Given(environment="e", bucket="from-option", region="us-east-1"))

    assert found.bucket == "from-option"


def test_an_airflow_is_where_its_configuration_is(tmp_path):
    environ = {"AIRFLOW_HOME": str(tmp_path)}

    assert not is_airflow_here(environ)
    (tmp_path / "airflow.cfg").write_text("")
    assert is_airflow_here(environ)


def test_a_connection_of_the_environment_is_airflows(tmp_path):
    environ = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW_CONN_AWS_DEFAULT": "aws://"}

    assert uses_airflow(environ, "aws_default")
    assert not uses_airflow(environ, "other")
