"""User data as cloud-init would read it."""

import gzip

import pytest

from airflow_ephemeral_ec2.local.user_data_parts import read_user_data

_MIME = b"""Content-Type: multipart/mixed; boundary="==x"
MIME-Version: 1.0

--==x
Content-Type: text/cloud-boothook; charset="us-ascii"

#cloud-boothook
#!/bin/sh
echo o >/proc/sysrq-trigger

--==x
Content-Type: text/x-shellscript; charset="us-ascii"

#!/usr/bin/env python3
print("agent")

--==x
Content-Type: text/cloud-config

users: []

--==x--
"""


@pytest.mark.parametrize("raw", [_MIME, gzip.compress(_MIME, mtime=0)])
def test_only_shell_scripts_are_run_and_never_the_boothook(raw):
    found = read_user_data(raw)

    assert found.scripts == (b'#!/usr/bin/env python3\nprint("agent")\n',)
    assert found.has_boothook
    assert found.ignored == ("text/cloud-config",)


def test_a_plain_script_is_run_as_it_is():
    assert read_user_data(b"#!/bin/sh\nid\n").scripts == (b"#!/bin/sh\nid\n",)


@pytest.mark.parametrize(
    "raw", [b"", b"#cloud-config\nusers: []\n", b"Content-Type: image/png\n\nx"]
)
def test_what_is_no_script_runs_nothing(raw):
    assert read_user_data(raw).scripts == ()


def test_broken_gzip_is_named():
    with pytest.raises(ValueError, match="cannot be unpacked"):
        read_user_data(b"\x1f\x8b\x00broken")
