"""What the report says about result and disk, and the console marker."""

import json
import os
from hashlib import sha256

import pytest

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.agent.report import (
    console_marker,
    disk,
    empty_report,
    encode,
    read_result,
)

CONFIG = {"jobkey": "k", "attempt": 2, "nonce": "n"}
GIB = 1 << 30


def result_of(tmp_path, content: bytes):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    return read_result(str(path))


def test_a_result_is_read(tmp_path):
    assert result_of(tmp_path, b'{"rows": 5}') == ({"rows": 5}, None)


def test_no_result_is_no_error(tmp_path):
    assert read_result(str(tmp_path / "none")) == (None, None)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"not json", "not JSON"),
        (b"NaN", "not JSON"),
        (b"[" * 4000, "not JSON"),
        (b'"' + b"x" * 4095 + b'"', "4,097 bytes"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_a_result_that_cannot_be_used_says_why(tmp_path, content, complaint):
    value, error = result_of(tmp_path, content)

    assert value is None
    assert complaint in error


def test_a_link_is_not_followed_to_somebody_elses_file(tmp_path):
    (tmp_path / "secret").write_text("1")
    (tmp_path / "result.json").symlink_to(tmp_path / "secret")

    value, error = read_result(str(tmp_path / "result.json"))

    assert value is None
    assert "ELOOP" in error


def test_a_pipe_does_not_block_the_report(tmp_path):
    os.mkfifo(tmp_path / "result.json")

    assert "plain file" in read_result(str(tmp_path / "result.json"))[1]


@pytest.mark.parametrize("text", ["ä" * 2000, "\U0001f600" * 1000])
def test_a_report_with_the_largest_result_stays_below_eight_kilobytes(tmp_path, text):
    value, _ = result_of(tmp_path, json.dumps(text, ensure_ascii=False).encode())

    report = {**empty_report(CONFIG, "f" * 64), "result": value, "result_error": "x" * 200}

    assert value == text
    assert len(encode(report)) < 8192


def test_half_a_surrogate_pair_survives_as_json(tmp_path):
    value, _ = result_of(tmp_path, b'"\\ud800"')

    assert json.loads(encode(value)) == "\ud800"


def test_the_marker_carries_a_checksum_over_what_it_says():
    report = {**empty_report(CONFIG, ""), "phase": "job", "exit_code": 65}

    word, facts, checksum = console_marker(report).split(" ")

    assert word == contract.CONSOLE_MARKER
    assert checksum == sha256(facts.encode()).hexdigest()[:16]
    assert json.loads(facts)["nonce"] == "n"
    assert json.loads(facts)["exit_code"] == 65


def test_the_marker_never_holds_the_result_or_an_error_text():
    report = {**empty_report(CONFIG, ""), "phase": "code", "result": "PHI"}
    report["error"] = {"kind": "internal", "message": "PHI"}

    assert "PHI" not in console_marker(report)
    assert '"error":"internal"' in console_marker(report)


def test_a_folder_of_its_own_is_measured_by_apparent_size(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 900)
    (tmp_path / "b").write_bytes(b"x" * 49)

    assert disk(str(tmp_path), 1000, shared=True) == (949, False)
    (tmp_path / "c").write_bytes(b"x")
    assert disk(str(tmp_path), 1000, shared=True) == (950, True)


def test_a_filesystem_is_measured_as_a_whole(tmp_path):
    used, full = disk(str(tmp_path), 1, shared=False)

    assert used > 0
    assert isinstance(full, bool)
