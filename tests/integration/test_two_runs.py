"""Two runs that ask for the same job and date at the same moment, on one local EC2."""

import pytest

from airflow_ephemeral_ec2.local.testing import local_ec2
from tests.integration.engine import Engine


@pytest.fixture(scope="module")
def cloud():
    with local_ec2(seed={"state_bucket": "records"}, pending=0.1, shutting_down=0.5) as cloud:
        yield cloud


def test_no_job_is_at_work_in_two_runs_of_a_date_at_once(cloud, make_spec):
    engine, other_run = Engine(cloud, make_spec), Engine(cloud, make_spec)
    first = engine.open(command=["sleep", "1"])
    controller = engine.launch(first)
    second = other_run.open(command=["true"])

    outcomes = [engine.wait(opened, controller).outcome for opened in (first, second)]

    assert outcomes == ["succeeded"] * 2
    lines = cloud.lines()
    gone = next(
        number for number, line in enumerate(lines)
        if line.get("event") == "state" and line["state"] == "terminated"
        and {line["instance_id"]} == engine.machines(first)
    )  # fmt: skip
    asked = next(n for n, line in enumerate(lines) if line in engine.launches(second))
    assert gone < asked
