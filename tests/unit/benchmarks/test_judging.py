"""How benchmarks turn what they saw into numbers."""

import re

import pytest

from benchmarks import scale_report
from benchmarks.environment import merge_pins
from benchmarks.launching import importance, judge_launches
from benchmarks.measuring import difference, percentile
from benchmarks.records import plan_jobs


class Seen:
    """An endpoint that has seen these launches."""

    def __init__(self, launches, instances, refused=0):
        self._answers = {
            "launches": {"launches": launches, "instances": instances},
            "counts": {"refused": {"ec2:RunInstances": refused}},
        }

    def ask(self, command):
        return self._answers[command]


def test_percentiles_are_values_that_were_seen():
    values = [float(number) for number in range(1, 101)]

    assert percentile(values, 0.50) == 50
    assert percentile(values, 0.99) == 99
    assert percentile([7.0], 0.99) == 7
    assert percentile([], 0.5) is None


def test_only_what_was_called_between_counts():
    assert difference({"a": 5, "b": 2, "c": 1}, {"a": 3, "b": 2}) == {"a": 2, "c": 1}


@pytest.mark.parametrize(
    ("launched", "passed"), [("abcd", 0), ("bacd", 1), ("dabc", 3), ("abdc", 1), ("dcba", 3)]
)
def test_a_launch_after_a_less_important_one_was_passed(launched, passed):
    seen = Seen([[float(at), token] for at, token in enumerate(launched)], instances=4)

    assert judge_launches(seen, list("abcd"))["passed_by_a_less_important"] == passed


def test_the_same_token_again_is_no_second_launch_and_a_second_instance_is():
    launches = [[0.0, "a"], [1.0, "b"], [2.0, "a"], [11.0, "c"]]

    numbers = judge_launches(Seen(launches, instances=4, refused=3), list("abc"))

    assert (numbers["launched"], numbers["double_launches"]) == (3, 1)
    assert (numbers["seconds"], numbers["throttled_calls"]) == (11.0, 3)


def test_the_most_important_job_comes_first_and_then_who_came_first():
    jobs = plan_jobs(6, priorities=(100, 900, 500))

    order = [jobs.index(job) for job in sorted(jobs, key=importance)]

    assert order == [1, 4, 2, 5, 0, 3]


def test_each_package_has_one_pin():
    names = re.findall(r"^([^=]+)==", merge_pins(), re.MULTILINE)

    assert len(names) == len(set(names))
    assert {"aiobotocore", "apache-airflow", "botocore", "matplotlib"} <= set(names)


def test_a_row_measured_again_replaces_the_old_one(tmp_path, monkeypatch):
    monkeypatch.setattr(scale_report, "RESULTS", tmp_path / "results" / "waiting.json")
    machine = dict.fromkeys((*scale_report.SAME, "cpu"), "x")
    old = [{"subject": "ours", "jobs": 100, "rss_mb": 1}, {"subject": "ours", "jobs": 10}]

    scale_report.keep_rows(machine, old)
    found = scale_report.keep_rows(machine, [{"subject": "ours", "jobs": 100, "rss_mb": 2}])

    assert [(row["jobs"], row.get("rss_mb")) for row in found["rows"]] == [(10, None), (100, 2)]
    beside = scale_report.keep_rows(machine | {"cpu": "y"}, [{"subject": "ours", "jobs": 10}])
    assert [(row["jobs"], row["cpu"]) for row in beside["rows"]] == [(10, "y"), (100, "x")]
    other = scale_report.keep_rows(machine | {"cores": 64}, [{"subject": "peer", "jobs": 1}])
    assert [row["subject"] for row in other["rows"]] == ["peer"]
