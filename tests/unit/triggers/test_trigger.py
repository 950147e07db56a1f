"""Who is killed when a trigger is cancelled, and who is not."""

import pytest

from airflow_ephemeral_ec2.triggers.ec2 import EphemeralEC2Trigger
from airflow_ephemeral_ec2.triggers.job import EphemeralEC2JobTrigger
from airflow_ephemeral_ec2.triggers.task_state import is_abandoned


@pytest.mark.parametrize(
    ("state", "abandoned"),
    [
        ("deferred", False),
        (None, False),
        ("up_for_retry", False),
        ("failed", True),
        ("success", True),
        ("skipped", True),
        ("scheduled", True),
        ("queued", True),
        ("removed", True),
        ("none", True),
        ("running", True),
    ],
)
def test_only_a_task_that_is_known_not_to_wait_any_more_is_killed(state, abandoned):
    assert is_abandoned(state) is abandoned


@pytest.mark.parametrize(
    ("state", "abandoned"),
    [
        ("deferred", False),
        ("none", False),
        ("scheduled", False),
        ("queued", False),
        ("running", False),
        ("up_for_retry", False),
        ("failed", True),
        ("success", True),
        ("skipped", True),
        ("removed", True),
    ],
)
def test_a_triggerer_that_stalled_leaves_what_a_retry_may_adopt(state, abandoned):
    """The trigger has failed at another triggerer meanwhile; or the task was cleared."""
    assert is_abandoned(state, is_in_doubt=True) is abandoned


@pytest.mark.parametrize(
    "trigger",
    [
        EphemeralEC2Trigger(
            "k", 2, "aws_default", "us-east-1", identity={"dag_id": "d"}, ends_at=1000.5
        ),
        EphemeralEC2JobTrigger("acme", "claims", "2026-03-01", None, 5.0),
    ],
    ids=["attempt", "job"],
)
def test_a_trigger_survives_its_journey_to_the_triggerer(trigger):
    path, arguments = trigger.serialize()

    again = type(trigger)(**arguments)

    assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
    assert again.serialize() == trigger.serialize()
