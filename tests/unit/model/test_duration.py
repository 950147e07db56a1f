"""Durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_ephemeral_ec2.model.duration import compact_duration, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2d", 172_800), (" 5m ", 300)],
)
def test_units_add_up(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", [30, "30", 1.5])
def test_a_number_without_unit_is_refused_with_advice(value):
    with pytest.raises(ValueError, match=f"{value}: no unit; write {value}m or {value}s"):
        parse_duration(value)


@pytest.mark.parametrize(
    "value", ["", "soon", "m30", "30min", "1h 30m", "-5m", True, None, [], "1.5h"]
)
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(value)


@pytest.mark.parametrize("value", ["0s", "0h0m"])
def test_no_time_at_all_is_refused(value):
    with pytest.raises(ValueError, match="longer than 0s"):
        parse_duration(value)


@given(st.integers(1, 10_000_000))
def test_compact_is_the_inverse_of_parse(seconds):
    assert parse_duration(compact_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.44, "1.4s"),
        (38, "38s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (131, "2m 11s"),
        (3900, "1h 05m"),
    ],
)
def test_people_read_two_units_at_most(seconds, text):
    assert format_duration(seconds) == text
