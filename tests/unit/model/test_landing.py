"""Which files count, and for which date: read from the events alone."""

import json
import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_ephemeral_ec2.model.landing import (
    LandedObject,
    Place,
    StoredObject,
    Verdict,
    find_file_date,
    judge_event,
    judge_stored,
    parse_place,
    read_events,
    read_messages,
)
from airflow_ephemeral_ec2.model.spec import FILES

PLACE = Place("landing", "acme/", "*.csv")


def landed(key="acme/members.csv", **changes):
    fields = {
        "bucket": "landing", "size": 4, "etag": "e1", "version_id": "",
        "happened": "2026-03-04T23:30:00+00:00",
    }  # fmt: skip
    return LandedObject(key=key, **(fields | changes))


def s3_record(key="acme/members.csv", event="ObjectCreated:Put", **changes):
    found = {"key": key, "size": 4, "eTag": "e1"} | changes
    return {
        "eventName": event,
        "eventTime": "2026-03-04T23:30:00.000Z",
        "s3": {"bucket": {"name": "landing"}, "object": found},
    }


def s3_event(*records):
    return json.dumps({"Records": list(records)})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s3://landing/acme/*.csv", Place("landing", "acme/", "*.csv")),
        ("s3://landing/a/b/", Place("landing", "a/b/", "*")),
        ("s3://landing/", Place("landing", "", "*")),
        ("s3://landing/members-[0-9]*", Place("landing", "", "members-[0-9]*")),
    ],
)
def test_a_place_is_bucket_folder_and_pattern(text, place):
    assert parse_place(text) == place
    assert re.fullmatch(FILES, text)


@pytest.mark.parametrize(
    "text", ["landing/acme/", "s3://landing", "s3://landing/*/x.csv", "s3:///x"]
)
def test_a_place_of_another_form_is_refused_by_the_table_too(text):
    with pytest.raises(ValueError, match="write s3://bucket/folder/"):
        parse_place(text)
    assert not re.match(FILES, text)


@given(st.from_regex(FILES.replace("$", r"\Z"), fullmatch=True))
def test_whatever_the_table_takes_is_a_place(text):
    place = parse_place(text)

    assert text.startswith(f"s3://{place.bucket}/{place.prefix}")
    assert not set("*?[") & set(place.prefix)


def test_an_event_of_s3_names_its_object_decoded():
    [found] = read_events(s3_event(s3_record("acme/new+members%2B1.csv", eTag='"e1"')))

    assert found == landed("acme/new members+1.csv")


def test_an_event_through_sns_is_the_same():
    inner = s3_event(s3_record())

    assert read_events(json.dumps({"Type": "Notification", "Message": inner})) == (landed(),)


def test_an_event_of_eventbridge_is_the_same_and_its_key_is_not_encoded():
    document = {
        "detail-type": "Object Created",
        "time": "2026-03-04T23:30:00Z",
        "detail": {
            "bucket": {"name": "landing"},
            "object": {"key": "acme/a+b%20.csv", "size": 4, "etag": "e1", "version-id": "v1"},
        },
    }

    assert read_events(json.dumps(document)) == (landed("acme/a+b%20.csv", version_id="v1"),)


def test_the_test_event_names_no_object():
    assert read_events(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"})) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Records", "s3", "object", "Message", "detail", "eventName", "key"]),
            inner,
            max_size=4,
        )
    ),
)


@given(JSON.map(json.dumps) | st.text())
def test_what_is_no_event_is_told_apart_and_never_an_error(body):
    found = read_events(body)

    assert found is None or all(isinstance(one, LandedObject) for one in found)


@given(JSON)
def test_a_batch_of_anything_gives_messages_only(batch):
    assert (
        read_messages([batch, {"MessageId": "m", "ReceiptHandle": "r", "Body": "b"}])[-1].body
        == "b"
    )


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.TAKEN),
        ({"key": "acme/2026/members.csv"}, Verdict.TAKEN),
        ({"size": 0}, Verdict.EMPTY),
        ({"is_creation": False}, Verdict.NOT_CREATED),
        ({"bucket": "other"}, Verdict.ELSEWHERE),
        ({"key": "pea/members.csv"}, Verdict.ELSEWHERE),
        ({"key": "acme/members.txt"}, Verdict.ELSEWHERE),
        ({"key": "acme/2026/"}, Verdict.ELSEWHERE),
        ({"key": "acme/members.csv.part"}, Verdict.UNFINISHED),
        ({"key": "acme/members.csv.TMP"}, Verdict.UNFINISHED),
        ({"key": "acme/.members.csv"}, Verdict.UNFINISHED),
        ({"key": "acme/.hidden/members.csv"}, Verdict.UNFINISHED),
        ({"key": "acme/_temporary/0/members.csv"}, Verdict.UNFINISHED),
        ({"key": "acme/members.csv.filepart"}, Verdict.UNFINISHED),
    ],
    ids=str,
)
def test_an_event_alone_says_whether_its_object_may_count(changes, verdict):
    assert judge_event(landed(**changes), PLACE) is verdict


def test_a_hidden_folder_above_the_landing_folder_is_the_users_own_choice():
    place = Place("landing", ".sftp/acme/", "*")

    assert judge_event(landed(".sftp/acme/members.csv"), place) is Verdict.TAKEN


@pytest.mark.parametrize(
    ("event", "now", "verdict"),
    [
        ({}, StoredObject(4, "e1", ""), Verdict.TAKEN),
        ({}, None, Verdict.GONE),
        ({}, StoredObject(4, "e2", ""), Verdict.REPLACED),
        ({}, StoredObject(5, "e1", ""), Verdict.REPLACED),
        ({"version_id": "v1"}, StoredObject(4, "e1", "v1"), Verdict.TAKEN),
        ({"version_id": "v1"}, StoredObject(4, "e1", "v2"), Verdict.REPLACED),
        ({"version_id": "v1"}, StoredObject(0, "e1", "v1"), Verdict.EMPTY),
    ],
)
def test_s3_has_the_last_word(event, now, verdict):
    assert judge_stored(landed(**event), now) is verdict


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("acme/members_2026-03-01.csv", "2026-03-01"),
        ("acme/members20260301.csv", "2026-03-01"),
        ("acme/2026_03_01-members.csv", "2026-03-01"),
        ("acme/members_20260301123059.csv", "2026-03-01"),
        ("acme/2026-03-01/members.csv", "2026-03-01"),
        ("acme/2026-03-01/members_20260302.csv", "2026-03-02"),
        ("acme/20260301-20260331.csv", "2026-03-01"),
        ("acme/members_20260230.csv", "2026-03-04"),
        ("acme/id1202603011.csv", "2026-03-04"),
        ("acme/2026-0301.csv", "2026-03-04"),
        ("acme/members.csv", "2026-03-04"),
    ],
)
def test_the_business_date_is_in_the_name_or_the_folder_or_is_the_events_day(key, found):
    assert find_file_date(landed(key)) == found


def test_the_events_day_is_that_of_utc():
    assert find_file_date(landed(happened="2026-03-04T23:30:00-05:00")) == "2026-03-05"


@given(st.dates(date(2000, 1, 1), date(2099, 12, 31)), st.sampled_from(["-", "_", ""]))
def test_any_date_that_is_written_is_found(day, separator):
    text = separator.join([f"{day.year:04}", f"{day.month:02}", f"{day.day:02}"])

    assert find_file_date(landed(f"acme/x{text}y.csv")) == str(day)


def test_the_same_bytes_are_the_same_file_but_a_version_is_its_own():
    assert landed().digest == landed(happened="2027-01-01T00:00:00+00:00").digest
    assert landed().digest != landed(etag="e2").digest
    assert landed(version_id="v1").digest != landed(version_id="v2").digest
    assert landed("a/b", bucket="c").digest != landed("b", bucket="c/a").digest


def test_a_digest_does_not_show_the_key():
    assert "members" not in landed().digest
