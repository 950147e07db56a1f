"""Links work while the task waits and after it has ended."""

from airflow_ephemeral_ec2.links.ec2 import instance_url, log_url

PLACE = {
    "environment": "prod",
    "bucket": "records",
    "bucket_region": "eu-central-1",
    "region": "us-east-1",
    "jobkey": "abc",
    "attempt": 2,
}


def test_the_machine_is_shown_by_its_tag():
    assert instance_url(PLACE) == (
        "https://us-east-1.console.aws.amazon.com/ec2/home?region=us-east-1"
        "#Instances:tag:ephemeral-ec2:jobkey=abc"
    )


def test_before_there_is_a_log_the_records_are_shown():
    assert log_url(PLACE).endswith("/buckets/records?prefix=prod/jobs/abc/a2/")


def test_the_log_is_shown_once_there_is_one():
    place = PLACE | {"log": "s3://records/prod/machines/arn:aws:ec2:r:1:instance/i-1/log/"}

    assert log_url(place).endswith(
        "prefix=prod/machines/arn%3Aaws%3Aec2%3Ar%3A1%3Ainstance/i-1/log/"
    )
