import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from data_bucket import DataBucket
from endings import MissingInput

KEY = "payers/acme/roster/date=2026-03-01/part-0.parquet"
LISTED = {"Bucket": "b", "Prefix": "payers/acme/roster/date="}


@pytest.fixture
def s3():
    secret = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    client = boto3.client("s3", region_name="us-east-1", **secret)
    with Stubber(client) as stubber:
        yield client, stubber


def read_refused(s3, contents):
    client, stubber = s3
    stubber.add_client_error("get_object", "AccessDenied", http_status_code=403)
    stubber.add_response("list_objects_v2", {"Contents": contents}, LISTED)
    DataBucket(client, name="b", payer="acme", date="2026-03-01").read("roster")


def test_a_403_for_a_dataset_that_is_not_there_is_a_missing_input(s3):
    with pytest.raises(MissingInput, match="date=2026-03-01"):
        read_refused(s3, [])


def test_a_403_for_a_dataset_that_is_there_stays_a_refusal(s3):
    with pytest.raises(ClientError, match="AccessDenied"):
        read_refused(s3, [{"Key": KEY}])
