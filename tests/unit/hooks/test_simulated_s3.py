"""The bucket in memory answers as moto does, call by call, to what ``hooks/bucket.py`` asks."""

import itertools

import pytest
from botocore.exceptions import ClientError

KEYS = [
    "test/jobs/a/launch.json",
    "test/jobs/b/launch.json",
    "test/jobs/plain",
    "test/queue/x.json",
]
CONDITIONS = [{}, {"IfNoneMatch": "*"}, {"IfMatch": "same"}, {"IfMatch": '"other"'}]


def ask(store, operation, **request):
    """Return what of the answer ours looks at."""
    try:
        answer = getattr(store.s3, operation)(Bucket=store.bucket, **request)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return status, error.response["Error"]["Code"]
    return {
        "body": answer["Body"].read() if "Body" in answer else None,
        "size": answer.get("ContentLength") if operation == "get_object" else None,
    }


def etag(store, key):
    return store.s3.head_object(Bucket=store.bucket, Key=key)["ETag"]


@pytest.fixture
def both(store, moto_store):
    assert type(store.s3) is not type(moto_store.s3)
    return store, moto_store


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_a_conditional_write_is_taken_or_refused(both, is_there, condition):
    def write(store):
        put = {"Key": KEYS[0], "Body": b"new", "ContentType": "application/json"}
        given = dict(condition)
        if is_there:
            store.s3.put_object(Bucket=store.bucket, Key=KEYS[0], Body=b"old")
            if given.get("IfMatch") == "same":
                given["IfMatch"] = etag(store, KEYS[0])
        first = ask(store, "put_object", **put, **given)
        return (
            first,
            ask(store, "get_object", Key=KEYS[0]),
            ask(store, "put_object", **put, **given),
        )

    ours, motos = map(write, both)

    assert ours == motos


@pytest.mark.parametrize("operation", ["get_object", "head_object", "delete_object"])
@pytest.mark.parametrize("is_there", [True, False])
def test_an_object_is_there_or_not(both, operation, is_there):
    def look(store):
        if is_there:
            store.s3.put_object(Bucket=store.bucket, Key=KEYS[0], Body=b"old")
        return ask(store, operation, Key=KEYS[0]), ask(store, "head_object", Key=KEYS[0])

    ours, motos = map(look, both)

    assert ours == motos


def test_an_etag_follows_the_body(both):
    def tags(store):
        found = []
        for body in (b"one", b"two", b"one"):
            store.s3.put_object(Bucket=store.bucket, Key=KEYS[0], Body=body)
            found.append(etag(store, KEYS[0]))
        return [one == other for one, other in itertools.combinations(found, 2)]

    ours, motos = map(tags, both)

    assert ours == motos == [False, True, False]


@pytest.mark.parametrize("prefix", ["", "test/jobs/", "test/jobs/a", "test/queue/", "nothing/"])
def test_keys_and_folders_are_listed_in_order(both, prefix):
    def lists(store):
        for key in reversed(KEYS):
            store.s3.put_object(Bucket=store.bucket, Key=key, Body=b"")
        return list(store.list_keys(prefix)), list(store.list_folders(prefix))

    ours, motos = map(lists, both)

    assert ours == motos
