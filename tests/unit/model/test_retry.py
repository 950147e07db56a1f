"""Two budgets, each spent by its own causes."""

from airflow_ephemeral_ec2.model.outcome import Budget, Outcome, Verdict
from airflow_ephemeral_ec2.model.record import Times, conclude
from airflow_ephemeral_ec2.model.retry import decide_retry


def ended(record, budget, exit_code=None, outcome=Outcome.JOB_FAILED):
    verdict = Verdict(outcome, "why", budget)
    return conclude(record, verdict, Times(requested=0.0), fields={"exit_code": exit_code})


def test_a_cause_without_budget_is_final(make_record):
    record = make_record()

    retry = decide_retry(record.spec, ended(record, Budget.NONE, 65), [])

    assert retry.is_allowed is False
    assert retry.sentence == "Not retried: 65 is not in retry_exit_codes."


def test_each_budget_is_spent_by_its_own_cause(make_record):
    record = make_record(infra_retries=1, job_retries=1)
    infra = ended(record, Budget.INFRA, outcome=Outcome.SPOT_INTERRUPTED)
    job = ended(record, Budget.JOB, 75)

    assert decide_retry(record.spec, infra, [job]).is_allowed is True
    assert decide_retry(record.spec, job, [infra]).is_allowed is True
    assert decide_retry(record.spec, infra, [infra]).is_allowed is False
    assert decide_retry(record.spec, job, [infra, job]).is_allowed is False


def test_clearing_the_task_gives_it_fresh_budgets(make_record):
    record = make_record(infra_retries=1)
    before = ended(make_record(epoch="before"), Budget.INFRA, outcome=Outcome.NO_CAPACITY)

    retry = decide_retry(
        record.spec, ended(record, Budget.INFRA, outcome=Outcome.NO_CAPACITY), [before]
    )

    assert retry.is_allowed is True
    assert retry.sentence == "Retry 1 of 1 (infra_retries)."
