"""What the instance gets as user data: bytes, parts, size, nothing a shell could read."""

import base64
import gzip
import json
import re
import subprocess
import zlib
from email import message_from_bytes

import pytest

from airflow_ephemeral_ec2.exceptions import UserDataTooLargeError
from airflow_ephemeral_ec2.hooks.agent_bundle import agent_source
from airflow_ephemeral_ec2.model.user_data import USER_DATA_LIMIT, check_size, render_user_data

CONFIG = {
    "v": 1, "env": "demo", "bucket": "ephemeral-ec2-demo", "region": "us-east-1",
    "jobkey": "3f1c9ab27d60e58471bb02c9d6f8e1a45c7390e2fd81b64a0c5e9d7283f6ab10", "attempt": 1,
    "nonce": "9b4e0d61f7c2a8355d1e60b94fa7c382", "payer": "acme", "job": "claims",
    "date": "2026-03-01", "array_index": 0, "array_size": 1, "command": ["python3", "claims.py"],
    "pre_command": [], "environ": {"PAYER_FORMAT": "x12", "CURRENCY": "USD"}, "secrets": {},
    "code": "c0ffee12ab90d4e7f35182c6b7a9d0e1f2435465768798a9bacbdcedfe0f1a2b",
    "job_role": "arn:aws:iam::123456789012:role/acme-data", "max_runtime": 1800,
    "boot_timeout": 600, "stop_grace": 20, "max_lifetime": 2720, "log_limit": 67108864,
    "volume_bytes": 21474836480,
}  # fmt: skip


def parts_of(user_data: bytes) -> dict[str, str]:
    message = message_from_bytes(gzip.decompress(user_data))
    return {
        part.get_content_type(): part.get_payload(decode=True).decode()
        for part in message.walk()
        if not part.is_multipart()
    }


def test_a_typical_job_stays_within_twelve_thousand_bytes():
    assert len(render_user_data(CONFIG, agent=agent_source())) <= 12_000


def test_equal_input_gives_equal_bytes_in_any_order():
    turned = dict(reversed(CONFIG.items()))

    assert render_user_data(CONFIG, agent="x") == render_user_data(turned, agent="x")


def test_the_gzip_header_holds_no_time():
    assert render_user_data(CONFIG, agent="x")[4:8] == bytes(4)


def test_the_parts_are_the_watchdog_and_the_agent():
    parts = parts_of(render_user_data(CONFIG, agent="AGENT\n"))

    assert list(parts) == ["text/cloud-boothook", "text/x-shellscript"]
    assert parts["text/x-shellscript"].startswith("#!/bin/sh\n")
    assert "AGENT\n" in parts["text/x-shellscript"]


def test_the_watchdog_is_bounded_by_the_jobs_lifetime_and_a_reboot_by_a_minute():
    boothook = parts_of(render_user_data(CONFIG, agent=""))["text/cloud-boothook"]

    assert "L=2720; [ $n -gt 1 ] && L=60" in boothook
    assert "@" not in boothook


def test_B11_the_watchdog_never_waits_for_the_boot_that_waits_for_it():
    """None: nothing in the boothook may wait."""
    boothook = parts_of(render_user_data(CONFIG, agent=""))["text/cloud-boothook"]

    assert "--no-block" in boothook
    assert "--timer-property=DefaultDependencies=no --property=DefaultDependencies=no" in boothook
    assert "halt" not in boothook


@pytest.mark.parametrize("lifetime", ["2720", "1; reboot", 2.5, None])
def test_a_lifetime_that_is_no_whole_number_never_reaches_the_shell(lifetime):
    with pytest.raises(TypeError, match="whole seconds"):
        render_user_data({**CONFIG, "max_lifetime": lifetime}, agent="")


def test_everything_from_the_table_is_inside_one_base64_blob():
    hostile = {**CONFIG, "command": ["'; reboot #", "$(id)"], "environ": {"A": "`id`\n'''"}}

    script = parts_of(render_user_data(hostile, agent=""))["text/x-shellscript"]

    blob = re.fullmatch(r'main\("([A-Za-z0-9+/=]+)","[0-9a-f]{64}"\)', script.splitlines()[-1])
    assert json.loads(zlib.decompress(base64.b64decode(blob[1]))) == hostile
    plain = parts_of(render_user_data(CONFIG, agent=""))["text/x-shellscript"]
    assert script.splitlines()[:-1] == plain.splitlines()[:-1]


@pytest.mark.parametrize("size", [0, USER_DATA_LIMIT])
def test_user_data_up_to_ec2s_limit_is_accepted(size):
    check_size(bytes(size), job="acme/claims")


def test_user_data_over_ec2s_limit_is_refused_with_size_and_advice():
    with pytest.raises(
        UserDataTooLargeError, match=r"acme/claims.*16,385 bytes of 16,384.*code folder"
    ):
        check_size(bytes(USER_DATA_LIMIT + 1), job="acme/claims")


@pytest.mark.parametrize("part", ["text/cloud-boothook", "text/x-shellscript"])
def test_a_shell_can_parse_each_part(part, tmp_path):
    script = tmp_path / "script"
    script.write_text(parts_of(render_user_data(CONFIG, agent=""))[part].partition("\n'''\n")[0])

    subprocess.run(["/bin/sh", "-n", str(script)], check=True)
