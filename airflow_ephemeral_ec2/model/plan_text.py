"""A plan as people read it, on five lines."""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.model.duration import compact_duration
from airflow_ephemeral_ec2.model.user_data import USER_DATA_LIMIT

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.model.plan import LaunchRecord
    from airflow_ephemeral_ec2.model.run_request import RunRequest

SHOWN_PLACEMENTS = 6
MADE_AT_LAUNCH = ("nonce", "jobkey", "client tokens")


@dataclass(frozen=True)
class Standing:
    """A row's code folder and whether the machine would find it."""

    folder: str | None
    sha256: str | None
    word: str
    """``pushed``, ``not pushed``, ``changed since it was pushed``, ``recorded`` or ``none``."""


def describe_plan(
    record: LaunchRecord,
    code: Standing,
    limit_vcpus: int | None,
    placeholders: tuple[str, ...],
    placement: int,
) -> list[str]:
    """Say what comes before, what is launched, what it takes, how long, and how many bytes."""
    spec = record.spec
    before = ", ".join(
        f"{spec.payer}/{job} {record.business_date} success" for job in spec.depends_on
    )
    limit = f"of {limit_vcpus} vCPU" if limit_vcpus else "vCPU, no limit in the table"
    runtime, boot = compact_duration(spec.max_runtime), compact_duration(spec.boot_timeout)
    size = len(base64.b64decode(record.user_data))
    lines = [
        _line("after", before or "nothing", f"priority {spec.priority}"),
        _line("launch", describe_placements(record)),
        _line("uses", f"{record.vcpus} {limit}", _say_image(record)),
        _line("ends", f"at most {runtime} + {boot} boot, then terminated"),
        _line("bytes", f"user data {size:,} of {USER_DATA_LIMIT:,}; {_say_code(code)}"),
    ]
    if not placeholders:
        chosen = record.placements[placement]
        asked = f"attempt {record.attempt} of {record.dag_id}.{record.task_id}, placement {placement + 1}: {chosen}"
        lines.append(_line("asked", asked))
    unknown = [name for name in placeholders if name not in MADE_AT_LAUNCH]
    if unknown:
        lines.append(_line("unknown", ", ".join(unknown)))
    return lines


def describe_dry_run(
    record: LaunchRecord,
    code: Standing,
    limit_vcpus: int | None,
    placeholders: tuple[str, ...],
    request: RunRequest,
) -> list[str]:
    """Say what a run would launch, what that costs money for, and what the run overrides."""
    spec = record.spec
    title = record.title.rpartition(", attempt")[0]
    machines = f"one of {spec.array_size} machines" if spec.array_size > 1 else "one machine"
    lines = [
        f"dry run of {title}: nothing is launched and nothing is written",
        *describe_plan(record, code, limit_vcpus, placeholders, 0),
        _line("runs", shlex.join(spec.command)),
        _line("buys", f"{machines}, {spec.capacity_type}, {spec.volume_gib} GiB of gp3"),
    ]
    if spec.job in request.instance_types:
        lines.append(_line("size", "of this run, not of the table"))
    if request.priority is not None:
        lines.append(_line("priority", f"{spec.priority} for this run: {request.reason}"))
    if request.ignore_order:
        lines.append(_line("order", f"not waited for in this run: {request.reason}"))
    return lines


def describe_placements(record: LaunchRecord) -> str:
    """``1 c7i.16xlarge subnet-0a1   2 same subnet-0b2   3 c6i.16xlarge subnet-0a1``."""
    words, before = [], ""
    for number, one in enumerate(record.placements[:SHOWN_PLACEMENTS], start=1):
        market = "" if one.capacity_type == "on-demand" else f" {one.capacity_type}"
        kind = f"{one.instance_type}{market}"
        words.append(f"{number} {'same' if kind == before else kind} {one.subnet}")
        before = kind
    more = len(record.placements) - SHOWN_PLACEMENTS
    return "   ".join(words) + (f"   and {more} more" if more > 0 else "")


def _say_image(record: LaunchRecord) -> str:
    asked = record.spec.ami
    if not asked.startswith("ssm:"):
        return record.image_id
    if set(record.image_id) <= set("ami-0"):
        return f"AMI from {_shorten(asked)}"
    return f"{record.image_id} (from {_shorten(asked)})"


def _shorten(parameter: str) -> str:
    """``ssm:.../al2023-ami-kernel-default-x86_64``."""
    return f"ssm:.../{parameter.rsplit('/', 1)[-1]}"


def _say_code(code: Standing) -> str:
    if code.sha256 is None:
        return "no code"
    return f"code sha256 {code.sha256[:12]}..., {code.word}"


def _line(title: str, first: str, second: str = "") -> str:
    return f"{title:<9}{first:<42}{second}".rstrip() if second else f"{title:<9}{first}"
