"""What an instance may ask about itself."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_ephemeral_ec2.local.imds import Metadata
from airflow_ephemeral_ec2.local.sessions import SessionBook

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROLE = "arn:aws:iam::123456789012:role/payer-machine"


def _metadata(**more):
    given = {
        "instance_id": "i-0a",
        "instance_arn": "arn:aws:ec2:us-east-1:123456789012:instance/i-0a",
        "instance_type": "m7i.large",
        "image_id": "ami-1",
        "region": "us-east-1",
        "zone": "us-east-1a",
        "account": "123456789012",
        "private_ip": "10.0.0.1",
        "architecture": "x86_64",
        "launched_at": datetime(2026, 3, 1, tzinfo=UTC),
        "user_data": b"#!/bin/sh\n",
        "role_arn": ROLE,
    }
    return Metadata(**{**given, **more})


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("meta-data/instance-id", b"i-0a"),
        ("meta-data/placement", b"availability-zone\nregion"),
        ("meta-data/placement/region", b"us-east-1"),
        ("meta-data/iam/security-credentials", b"payer-machine"),
        ("user-data", b"#!/bin/sh\n"),
        ("meta-data/spot/instance-action", None),
        ("meta-data/tags/instance", None),
        ("meta-data/iam/security-credentials/other", None),
        ("nothing", None),
    ],
)
def test_paths_answer_as_on_ec2(path, content):
    assert _metadata().answer(path) == content


def test_the_identity_document_names_account_region_and_instance():
    document = json.loads(_metadata().answer("dynamic/instance-identity/document"))

    found = (document["accountId"], document["region"], document["instanceId"])
    assert found == ("123456789012", "us-east-1", "i-0a")


def test_a_spot_notice_appears_when_it_is_given():
    metadata = _metadata(spot_action_at=datetime(2026, 3, 1, 12, tzinfo=UTC))

    notice = json.loads(metadata.answer("meta-data/spot/instance-action"))

    assert notice == {"action": "terminate", "time": "2026-03-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("lifetime", "seconds", "renewed"),
    [(None, 0, False), (None, 21_200, False), (None, 21_400, True), (10, 4, False), (10, 6, True)],
)
def test_credentials_are_renewed_before_they_end(lifetime, seconds, renewed):
    metadata = _metadata(sessions=SessionBook(lifetime))
    first = metadata.credentials(NOW)

    second = metadata.credentials(NOW + timedelta(seconds=seconds))

    assert (second.access_key != first.access_key) is renewed


def test_an_instance_without_a_role_has_no_credentials():
    assert _metadata(role_arn="").answer("meta-data/iam/security-credentials") is None
