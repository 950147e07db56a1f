"""When a payer's DAG runs: a cron expression, or assets that other DAGs or systems update."""

import re
from dataclasses import dataclass
from typing import Literal

ASSET_PREFIX = "asset:"
OWN_SCHEME = "ephemeral-ec2"


@dataclass(frozen=True)
class AssetSchedule:
    """A run for every update of an asset, of all of several, or of any."""

    uris: tuple[str, ...]
    when: Literal["all", "any"] = "all"


def name_payer_asset(payer: str) -> str:
    """Name the asset that a payer's successful run updates."""
    return f"{OWN_SCHEME}://payer/{payer}"


def name_job_asset(payer: str, job: str) -> str:
    """Name the asset that one successful job of a payer updates."""
    return f"{name_payer_asset(payer)}/{job}"


def find_payer(uri: str) -> str | None:
    """Name the payer whose asset (or whose job's asset) this is."""
    match = re.fullmatch(rf"{OWN_SCHEME}://payer/([^/]+)(/.*)?", uri)
    return match[1] if match else None


def parse_schedule(text: str) -> str | AssetSchedule:
    """Read the schedule of a checked table: a cron expression, or assets."""
    if not text.startswith(ASSET_PREFIX):
        return text
    mark = "|" if " | " in text else "&"
    uris = (part.strip().removeprefix(ASSET_PREFIX) for part in text.split(f" {mark} "))
    return AssetSchedule(tuple(dict.fromkeys(uris)), "any" if mark == "|" else "all")
