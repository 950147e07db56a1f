"""Who is told of what, and that no word of a job's output is in it."""

import json

import pytest
from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_ephemeral_ec2.notifications.alerts import (
    Alerts,
    alert_on_failure,
    alert_on_no_capacity,
    payload_of,
)


class Postcard(BaseNotifier):
    """A notifier as a provider would write it: a template, and somewhere to send it."""

    template_fields = ("text",)

    def __init__(
        self,
        sent,
        text="{{ ephemeral_ec2.payer }}/{{ ephemeral_ec2.job }}: {{ ephemeral_ec2.reason }}",
    ):
        super().__init__()
        self.text = text
        self.sent = sent

    def notify(self, context):
        self.sent.append((self.text, context["ephemeral_ec2"]))


class TaskInstance:
    task_id, map_index, log_url = "claims", -1, "https://airflow/log"

    def __init__(self, value, place=None):
        self.values = {"return_value": value, "ephemeral_ec2": place}

    def xcom_pull(self, *, task_ids, key, map_indexes):
        return self.values[key] if (task_ids, map_indexes) == ("claims", -1) else None


class Task:
    payer, job = "acme", "claims"


def context(outcome="job_failed", **more):
    value = {
        "payer": "acme",
        "job": "claims",
        "business_date": "2026-03-01",
        "attempt": 2,
        "outcome": outcome,
        "reason": "exit 65 (data error)",
        "result": {"patient": "Jane Doe"},
        "log": "s3://b/log/",
    }
    found = {"ti": TaskInstance(value), "task": Task(), "dag": None}
    return found | {"exception": ValueError("Jane Doe")} | more


def test_a_failure_is_told_with_the_fields_of_the_attempt():
    sent = []
    [callback] = alert_on_failure(Postcard(sent))

    callback(context())

    [(text, payload)] = sent
    assert text == "acme/claims: exit 65 (data error)"
    assert payload == {
        "event": "failed",
        "payer": "acme",
        "job": "claims",
        "business_date": "2026-03-01",
        "attempt": 2,
        "outcome": "job_failed",
        "reason": "exit 65 (data error)",
        "link": "https://airflow/log",
        "job_link": "https://airflow/log",
    }


def test_no_word_of_the_job_nor_of_an_exception_is_told():
    for found in (context(), context(ti=TaskInstance(None))):
        assert "Jane" not in json.dumps(payload_of(found, "failed"))


def test_a_task_that_failed_before_any_attempt_is_told_by_its_row():
    payload = payload_of(context(ti=TaskInstance(None)), "failed")

    assert (payload["payer"], payload["job"], payload["outcome"]) == ("acme", "claims", None)
    assert "before a machine" in payload["reason"]


PLACE = {
    "environment": "prod",
    "bucket": "records",
    "jobkey": "abc",
    "attempt": 3,
    "payer": "acme",
    "job": "claims",
    "business_date": "2026-03-02",
}


def test_a_task_that_was_ended_before_an_outcome_is_told_with_its_date_and_attempt():
    """Its execution_timeout was over, or a person marked it failed."""
    payload = payload_of(context(ti=TaskInstance(None, PLACE), task=None), "failed")

    assert payload == {
        "event": "failed",
        "payer": "acme",
        "job": "claims",
        "business_date": "2026-03-02",
        "attempt": 3,
        "outcome": None,
        "reason": "it failed before a machine had an outcome; see the log",
        "link": "https://airflow/log",
        "job_link": "https://airflow/log",
    }


def test_what_the_outcome_says_comes_before_what_the_launch_said():
    found = context()
    found["ti"].values["ephemeral_ec2"] = PLACE

    payload = payload_of(found, "failed")

    assert (payload["business_date"], payload["attempt"]) == ("2026-03-01", 2)


def test_a_result_of_another_kind_does_not_hide_the_date():
    """A custom operator returns what it likes."""
    payload = payload_of(context(ti=TaskInstance({"attempt": 2}, PLACE)), "failed")

    assert (payload["business_date"], payload["attempt"]) == ("2026-03-02", 2)


def test_a_notifier_tells_each_of_two_failures_in_its_own_words():
    sent = []
    [callback] = alert_on_failure(Postcard(sent))

    for reason in ("exit 65", "no capacity"):
        value = {"payer": "acme", "job": "claims", "reason": reason}
        callback(context(ti=TaskInstance(value)))

    assert [text for text, _ in sent] == ["acme/claims: exit 65", "acme/claims: no capacity"]


def test_a_failure_is_told_where_xcom_cannot_be_read(caplog):
    class Unreachable(TaskInstance):
        def xcom_pull(self, **_):
            raise RuntimeError("no supervisor here")

    sent = []
    [callback] = alert_on_failure(Postcard(sent))

    callback(context(ti=Unreachable(None)))

    assert sent[0][1]["payer"] == "acme"
    assert "cannot read what the attempt came to" in caplog.text


@pytest.mark.parametrize(
    ("outcome", "told"), [("no_capacity", 1), ("quota", 1), ("job_failed", 0), ("killed", 0)]
)
def test_missing_capacity_is_told_to_those_who_asked_for_it(outcome, told):
    sent = []
    [callback] = alert_on_no_capacity([Postcard(sent)])

    callback(context(outcome))

    assert len(sent) == told


def test_alerts_bind_to_the_callbacks_of_airflow():
    found = Alerts(failed=Postcard([]), no_capacity=[Postcard([]), Postcard([])]).arguments()

    assert len(found["on_failure_callback"]) == 3
    assert len(found["on_retry_callback"]) == 2
    assert Alerts().arguments() == {}
