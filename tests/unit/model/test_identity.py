"""Keys that reveal nothing, and attempts that are never run twice."""

import pytest

from airflow_ephemeral_ec2.model.identity import (
    AttemptChoice,
    PastAttempt,
    Step,
    TaskIdentity,
    choose_attempt,
    name_jobkey,
    name_run,
)

IDENTITY = TaskIdentity("payer_acme", "manual__2026-03-01", "claims")


def test_L13_a_jobkey_needs_the_secret_and_every_part_of_the_identity():
    """The same DAG in another environment."""
    keys = {
        name_jobkey(b"s1", "test", IDENTITY),
        name_jobkey(b"s2", "test", IDENTITY),
        name_jobkey(b"s1", "prod", IDENTITY),
        name_jobkey(b"s1", "test", TaskIdentity("payer_acme", "manual__2026-03-01", "claims", 0)),
        name_jobkey(b"s1", "test", TaskIdentity("payer_acme", "manual__2026-03-02", "claims")),
        name_jobkey(b"s1", "test", TaskIdentity("payer_acmemanual__2026-03-01", "", "claims")),
    }

    assert len(keys) == 6
    assert all(len(k) == 40 and int(k, 16) >= 0 for k in keys)


def test_all_tasks_of_a_run_have_its_name_and_no_other_run_has_it():
    """Nobody without the secret can make it from a run's id, which may tell too much."""
    runs = [
        (b"s1", "test", IDENTITY),
        (b"s2", "test", IDENTITY),
        (b"s1", "prod", IDENTITY),
        (b"s1", "test", TaskIdentity("payer_acme", "manual__2026-03-02", "claims")),
        (b"s1", "test", TaskIdentity("payer_pea", "manual__2026-03-01", "claims")),
    ]
    other_task = TaskIdentity("payer_acme", "manual__2026-03-01", "member", 3)

    assert len({name_run(*run) for run in runs}) == len(runs)
    assert name_run(b"s1", "test", other_task) == name_run(b"s1", "test", IDENTITY)


@pytest.mark.parametrize(
    ("past", "epoch", "choice"),
    [
        pytest.param(None, "e1", AttemptChoice(Step.OPEN, 1), id="first"),
        pytest.param(
            PastAttempt(1, "e1", None), "e1", AttemptChoice(Step.ADOPT, 1), id="retry after crash"
        ),
        pytest.param(
            PastAttempt(1, "e1", "job_failed"),
            "e1",
            AttemptChoice(Step.OPEN, 2),
            id="retry after failure",
        ),
        pytest.param(
            PastAttempt(2, "e1", "succeeded"),
            "e1",
            AttemptChoice(Step.RETURN, 2),
            id="success that Airflow was not told",
        ),
        pytest.param(
            PastAttempt(2, "e1", "skipped"), "e1", AttemptChoice(Step.RETURN, 2), id="skip untold"
        ),
        pytest.param(
            PastAttempt(2, "e1", "succeeded"),
            "e2",
            AttemptChoice(Step.OPEN, 3),
            id="cleared after success runs again",
        ),
        pytest.param(
            PastAttempt(1, "e1", None),
            "e2",
            AttemptChoice(Step.SUPERSEDE, 2),
            id="cleared while running",
        ),
    ],
)
def test_the_step_of_a_starting_task(past, epoch, choice):
    assert choose_attempt(past, epoch) == choice
