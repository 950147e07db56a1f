"""Limits by name, as waiting reasons and the command line name them."""

from airflow_ephemeral_ec2.model.queue import QueueEntry
from airflow_ephemeral_ec2.model.spec import Limits

TOTAL = "vCPU"


def name_limits(limits: Limits) -> dict[str, int]:
    """Name the limits that are set, as waiting reasons name them."""
    found = {
        of_market("on-demand"): limits.on_demand,
        of_market("spot"): limits.spot,
        **{of_payer(payer): vcpus for payer, vcpus in limits.payers.items()},
        **{of_job(job): vcpus for job, vcpus in limits.jobs.items()},
        TOTAL: limits.vcpus,
    }
    return {resource: vcpus for resource, vcpus in found.items() if vcpus is not None}


def limits_of(entry: QueueEntry, limits: Limits, market: str = "") -> dict[str, int]:
    """
    Name the limits that an entry counts against: its own first, the overall one last.

    :param market: capacity type of its machine; empty: it has none yet
    """
    known, markets = name_limits(limits), (market,) if market else entry.markets
    return {name: known[name] for name in _names_of(entry, markets) if name in known}


def _names_of(entry: QueueEntry, markets: tuple[str, ...]) -> list[str]:
    return [*map(of_market, markets), of_payer(entry.payer), of_job(entry.job), TOTAL]


def of_market(market: str) -> str:
    """Name the limit of a capacity type."""
    return f"{market} vCPU"


def of_payer(payer: str) -> str:
    """Name the limit of a payer."""
    return f"vCPU of payer {payer}"


def of_job(job: str) -> str:
    """Name the limit of a job."""
    return f"vCPU of job {job}"
