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
    first, second = (run.open(command=["sleep", "1"]) for run in (engine, other_run))
    controller = engine.controller()

    outcomes = [engine.wait(opened, controller) for opened in (first, second)]

    assert [found.outcome for found in outcomes] == ["succeeded"] * 2
    why = "waits for another run of endings, which"
    assert any(why in words for words in controller.story_of(second.name))
    lines = cloud.lines()
    gone = next(
        number for number, line in enumerate(lines)
        if line.get("event") == "state" and line["state"] == "terminated"
        and {line["instance_id"]} == engine.machines(first)
    )  # fmt: skip
    asked = next(n for n, line in enumerate(lines) if line in engine.launches(second))
    assert gone < asked
