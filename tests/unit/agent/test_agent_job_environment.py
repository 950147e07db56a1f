"""What a job finds in its environment."""

from airflow_ephemeral_ec2.agent.job_environment import job_environment

CONFIG = {
    "env": "demo", "bucket": "b", "region": "eu-west-1", "jobkey": "k", "attempt": 3,
    "payer": "acme", "job": "claims", "date": "2026-03-01", "array_index": 1, "array_size": 4,
    "environ": {},
}  # fmt: skip


def test_the_contract_is_there():
    found = job_environment(CONFIG, {}, "/work")

    expected = {
        "EPHEMERAL_PAYER": "acme", "EPHEMERAL_JOB": "claims",
        "EPHEMERAL_BUSINESS_DATE": "2026-03-01", "EPHEMERAL_ATTEMPT": "3",
        "EPHEMERAL_ARRAY_INDEX": "1", "EPHEMERAL_ARRAY_SIZE": "4", "EPHEMERAL_JOBKEY": "k",
        "EPHEMERAL_ENVIRONMENT": "demo", "EPHEMERAL_BUCKET": "b", "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": "/work", "TMPDIR": "/work",
    }  # fmt: skip
    assert expected.items() <= found.items()


def test_a_row_may_change_defaults_and_never_the_contract():
    row = {"PATH": "/opt/bin", "EPHEMERAL_PAYER": "other", "AWS_EC2_METADATA_DISABLED": "false"}

    found = job_environment({**CONFIG, "environ": row}, {"PATH": "/bin"}, "/work")

    assert found["PATH"] == "/opt/bin"
    assert found["EPHEMERAL_PAYER"] == "acme"
    assert found["AWS_EC2_METADATA_DISABLED"] == "true"


def test_the_agents_own_environment_stays_with_the_agent():
    around = {"AWS_ENDPOINT_URL": "http://x", "SECRET": "s", "PATH": "/p"}
    around["EPHEMERAL_EC2_POWEROFF"] = "/off"

    found = job_environment(CONFIG, around, "/work")

    assert found["AWS_ENDPOINT_URL"] == "http://x"
    assert found["PATH"] == "/p"
    assert not {"SECRET", "EPHEMERAL_EC2_POWEROFF"} & set(found)
