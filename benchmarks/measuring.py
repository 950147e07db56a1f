"""One subject awaits N jobs: the steady minute first, then the deaths."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.triggerer_process import TriggererProcess, triggerer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.endpoint_process import EndpointProcess
    from benchmarks.subjects import Subject, Wait

START_SECONDS = 900.0
QUIET_SECONDS = 8.0


@dataclass(frozen=True)
class Plan:
    """How long and how much."""

    warm_seconds: float
    """After the last trigger has started, before anything is counted."""
    steady_seconds: float
    """Whole minutes, so that what happens once a minute is counted as often as it happens."""
    deaths: int
    deaths_seconds: float
    late_seconds: float
    """For so long after the last death its detection is waited for."""
    seed: int = 1


def measure(
    subject: Subject,
    waits: list[Wait],
    running: int,
    endpoint: EndpointProcess,
    python: str,
    plan: Plan,
    folder: Path,
) -> dict[str, Any]:
    """
    Run one subject in a process of its own and return its numbers.

    :param running: so many of the awaited have a machine that can end, the first ones
    """
    began = time.monotonic()
    with triggerer(python, endpoint, [wait.trigger for wait in waits], folder) as runner:
        wanted = len(waits) + 1
        if not runner.wait_for(lambda heard: len(heard.started) >= wanted, START_SECONDS):
            errors = (folder / "stderr.txt").read_text()[-2_000:]
            text = f"{subject.name}: {len(runner.heard.started)} of {wanted} triggers started\n"
            raise RuntimeError(text + errors + "\n".join(runner.heard.logs[-5:]))
        first_looks = len(waits) if subject.is_peer else 0
        settled = settle(endpoint, plan.warm_seconds, first_looks)
        numbers: dict[str, Any] = {"jobs": len(waits), "start_s": round(settled - began, 1)}
        steady_from = time.monotonic()
        numbers |= watch_steady(runner, endpoint, plan.steady_seconds)
        if subject.ends and plan.deaths:
            numbers |= watch_deaths(runner, endpoint, waits[:running], plan)
        numbers["failed"] = sum(not ok for ok in runner.heard.ended.values())
        numbers["longest_block_s"] = max(runner.gaps(steady_from), default=0.05)
        numbers["longest_block_at_start_s"] = max(runner.gaps(0, steady_from), default=0.05)
        numbers["watchdog_lines"] = sum(at >= steady_from for at, _ in runner.heard.blocked)
        numbers["watchdog_lines_at_start"] = sum(at < steady_from for at, _ in runner.heard.blocked)
        numbers["notes"] = notes(runner)
    return numbers


def settle(endpoint: EndpointProcess, warm_seconds: float, first_looks: int) -> float:
    """
    Let the start pass: at least so long, and until nobody reads objects for the first time.

    :param first_looks: calls to wait for; a peer has not started before each trigger has looked
    :return: ``time.monotonic()`` when the start was over
    """
    began = time.monotonic()
    state, changed = (False, -1), began
    while True:
        now, counts = time.monotonic(), endpoint.ask("counts")
        has_looked = sum(counts["calls"].values()) >= first_looks
        found = (has_looked, counts["keys_read"])
        if found != state:
            state, changed = found, now
        is_warm = has_looked and now - began > warm_seconds
        if (is_warm and now - changed > QUIET_SECONDS) or now - began > START_SECONDS:
            return changed
        time.sleep(0.5)


def watch_steady(
    runner: TriggererProcess, endpoint: EndpointProcess, seconds: float
) -> dict[str, Any]:
    """Count while nothing starts and nothing ends."""
    calls, before, xcoms = endpoint.calls(), runner.weigh(), len(runner.heard.xcoms)
    time.sleep(seconds)
    counted, after = endpoint.calls(), runner.weigh()
    minutes = (after.at - before.at) / 60
    by_action = difference(counted, calls)
    return {
        "calls_per_min": round(sum(by_action.values()) / minutes, 1),
        "calls_by_action_per_min": {
            name: round(count / minutes, 1) for name, count in sorted(by_action.items())
        },
        "cpu_s_per_min": round((after.cpu_seconds - before.cpu_seconds) / minutes, 2),
        "rss_mb": round(after.rss_mb),
        "uss_mb": round(after.uss_mb),
        "threads": after.threads,
        "xcoms_per_min": round((len(runner.heard.xcoms) - xcoms) / minutes, 1),
    }


def watch_deaths(
    runner: TriggererProcess, endpoint: EndpointProcess, waits: list[Wait], plan: Plan
) -> dict[str, Any]:
    """Let some of them die at random moments and see when their triggers fire."""
    chance = random.Random(plan.seed)  # noqa: S311 - the same moments in every run
    # The probe is trigger 1.
    chosen = {number + 2: waits[number] for number in chance.sample(range(len(waits)), plan.deaths)}
    calls = endpoint.calls()
    deaths = [
        {
            "after": chance.uniform(0, plan.deaths_seconds),
            "name": wait.awaited,
            "objects": wait.leaves(),
        }
        for wait in chosen.values()
    ]
    endpoint.ask("die", deaths=deaths)
    runner.wait_for(
        lambda heard: chosen.keys() <= heard.ended.keys(), plan.deaths_seconds + plan.late_seconds
    )
    died = endpoint.ask("deaths")["at"]
    fired = runner.heard.fired
    seconds = sorted(
        fired[number] - died[wait.awaited]
        for number, wait in chosen.items()
        if number in fired and wait.awaited in died
    )
    by_action = difference(endpoint.calls(), calls)
    return {
        "deaths": len(chosen),
        "detected": len(seconds),
        "detect_p50_s": percentile(seconds, 0.50),
        "detect_p99_s": percentile(seconds, 0.99),
        "detect_max_s": round(seconds[-1], 2) if seconds else None,
        "calls_while_dying": dict(sorted(by_action.items())),
    }


def difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    found = {name: count - before.get(name, 0) for name, count in after.items()}
    return {name: count for name, count in found.items() if count}


def percentile(values: list[float], share: float) -> float | None:
    """Return the smallest value that so many are not above (nearest rank); None without values."""
    if not values:
        return None
    rank = max(int(-(-share * len(values) // 1)), 1)
    return round(values[rank - 1], 2)


def notes(runner: TriggererProcess) -> list[str]:
    """Keep the first of what went wrong, so that a number can be explained."""
    found = dict.fromkeys([*runner.heard.failures, *runner.heard.logs])
    return list(found)[:5]
