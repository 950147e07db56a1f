"""Client tokens: what RunInstances answers to a token that it knows."""

import pytest

from airflow_ephemeral_ec2.local.client_tokens import (
    Answer,
    TokenBook,
    TokenUse,
    judge_token,
    parameters_digest,
)


def _alive(_):
    return True


def _dead(_):
    return False


@pytest.mark.parametrize(
    ("use", "digest", "is_live", "answer"),
    [
        (None, "d", _alive, Answer.LAUNCH),
        (TokenUse("d"), "d", _alive, Answer.LAUNCH),
        (TokenUse("d"), "other", _alive, Answer.MISMATCH),
        (TokenUse("d", "r-1", ("i-1",)), "d", _alive, Answer.REPLAY),
        (TokenUse("d", "r-1", ("i-1",)), "d", _dead, Answer.TERMINATED),
        (TokenUse("d", "r-1", ("i-1",)), "other", _dead, Answer.MISMATCH),
    ],
)
def test_a_token_gets_the_answer_that_ec2_documents(use, digest, is_live, answer):
    assert judge_token(use, digest, is_live) is answer


def test_order_and_the_token_itself_are_not_parameters():
    first = parameters_digest({"Action": "RunInstances", "ClientToken": "a", "X": "1", "Y": "2"})
    second = parameters_digest({"Y": "2", "X": "1", "ClientToken": "b"})

    assert first == second


def test_another_instance_type_is_another_request():
    assert parameters_digest({"InstanceType": "m7i.large"}) != parameters_digest(
        {"InstanceType": "c7i.large"}
    )


def test_the_same_token_in_another_zone_is_another_token():
    book = TokenBook()
    book.bind("token", "us-east-1a", "d").instance_ids = ("i-1",)

    assert book.find("token", "us-east-1b") is None


def test_binding_twice_keeps_the_first_parameters():
    book = TokenBook()
    book.bind("token", "us-east-1a", "first")

    assert book.bind("token", "us-east-1a", "second").digest == "first"
