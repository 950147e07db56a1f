"""The benchmark of waiting measures the product in Airflow's own trigger runner."""

import sys

import pytest

pytest.importorskip("airflow.sdk", reason="the runner's process is that of Airflow 3")

from benchmarks.endpoint_process import fake_aws
from benchmarks.measuring import Plan, measure
from benchmarks.records import open_objects, plan_jobs, running_objects
from benchmarks.subjects import SUBJECTS


def test_all_deaths_are_seen_and_nothing_fails(tmp_path):
    plan = Plan(
        warm_seconds=0, steady_seconds=5, deaths=3, deaths_seconds=2, late_seconds=60, seed=1
    )
    jobs, subject = plan_jobs(5), SUBJECTS["ours"]
    with fake_aws() as endpoint:
        items = [*open_objects(jobs), *running_objects(jobs)]
        endpoint.load(tmp_path / "load.jsonl", items)
        waits = [subject.wait(job) for job in jobs]
        numbers = measure(subject, waits, 5, endpoint, sys.executable, plan, tmp_path / "run")

    assert (numbers["deaths"], numbers["detected"], numbers["failed"]) == (3, 3, 0), numbers
    # Neither a question that nobody answered nor a line that could not be written.
    assert numbers["notes"] == []
    assert 0 < numbers["detect_p50_s"] <= numbers["detect_max_s"] < 60
    assert numbers["calls_by_action_per_min"].keys() <= {
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceStatus",
        "s3:GetObject",
        "s3:ListObjectsV2",
        "s3:PutObject",
    }
    assert 20 < numbers["rss_mb"] < 2_000
    assert 0 < numbers["cpu_s_per_min"] < 60
