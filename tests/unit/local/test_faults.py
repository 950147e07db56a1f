"""Rules for faults on demand."""

import pytest

from airflow_ephemeral_ec2.local.faults import Fault, FaultBook, parse_fault


def test_a_rule_is_used_up_after_its_count():
    book = FaultBook()
    book.add(Fault("RunInstances", code="X", count=2))

    hits = []
    for _ in range(3):
        fault = book.peek("ec2", "RunInstances", {})
        hits.append(fault is not None)
        if fault:
            book.use(fault)

    assert hits == [True, True, False]


def test_count_zero_never_ends():
    book = FaultBook()
    book.add(Fault("RunInstances", code="X", count=0))
    for _ in range(5):
        book.use(book.peek("ec2", "RunInstances", {}))

    assert book.peek("ec2", "RunInstances", {}) is not None


@pytest.mark.parametrize(
    ("action", "match", "hits"),
    [
        ("PutObject", {}, True),
        ("s3:PutObject", {}, True),
        ("*", {}, True),
        ("ec2:PutObject", {}, False),
        ("GetObject", {}, False),
        ("PutObject", {"Key": r"report\.json$"}, True),
        ("PutObject", {"Key": "^log/"}, False),
        ("PutObject", {"Nothing": "x"}, False),
    ],
)
def test_a_rule_hits_by_action_and_parameters(action, match, hits):
    fault = Fault(action, match)

    assert fault.hits("s3", "PutObject", {"Key": "demo/report.json"}) is hits


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ([], "JSON object"),
        ({}, "action"),
        ({"action": "X", "cod": "y"}, "cod"),
        ({"action": "X", "match": {"Key": "("}}, "regular expression"),
    ],
)
def test_a_wrong_rule_says_what_is_wrong(body, problem):
    with pytest.raises(ValueError, match=problem):
        parse_fault(body)


def test_a_rule_holds_from_its_beginning_to_its_end():
    now = [100.0]
    book = FaultBook(lambda: now[0])
    book.add(Fault("RunInstances", code="X", count=0, start_after=10, lasts=5))

    def hits():
        return book.peek("ec2", "RunInstances", {}) is not None

    seen = []
    for now[0] in (100.0, 109.0, 110.0, 114.9, 115.1):
        seen.append(hits())

    assert seen == [False, False, True, True, False]


def test_a_rule_may_be_about_one_caller():
    fault = Fault("s3:*", code="X", by="payer-machine/i-")

    assert fault.hits("s3", "PutObject", {"by": "arn:aws:sts::1:assumed-role/payer-machine/i-0a"})
    assert not fault.hits("s3", "PutObject", {"by": "arn:aws:iam::1:user/local"})
