"""The benchmark of what the machine adds to a job runs, and counts what it says it counts."""

from airflow_ephemeral_ec2.local.testing import local_ec2
from benchmarks.agent_overhead import measure


def test_one_run_is_measured_from_launch_to_outcome(tmp_path, monkeypatch):
    with local_ec2(seed={"state_bucket": "records"}) as aws:
        for name, value in aws.environ.items():
            monkeypatch.setenv(name, value)
        (row,) = measure(aws, tmp_path, 1)

    assert row["bucket writes before waiting"] == 3
    assert row["SSM look-ups"] == 1
    assert row["EC2 calls before waiting"] == 0
    assert 0 < row["user data [bytes]"] <= 16_384
    assert 0 < row["machine running -> command [s]"] < 60
