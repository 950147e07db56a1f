"""The judge of ``bouncer``: who was launched while somebody more important waited for room.

    python -m benchmarks.bouncer_checker ARRIVALS LAUNCHES 64 5  # vCPU limit, seconds of grace

Reads two files of JSON lines and knows nothing of who decided:
ARRIVALS: name, payer, job, date, priority, vcpus, max_lifetime_s, arrived_at, depends (names);
LAUNCHES: name, at, ended_at, of the endpoint's RunInstances calls that gave a machine, in order.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

BURST = 5  # RunInstances calls that EC2 takes at once; who is sixth may only wait for the pace
Jobs = list[dict[str, Any]]
SHUTTING_DOWN = 10.0  # seconds before its end in which a machine may be known to be on its way out
SLACK = 60.0  # seconds that a launch may take: who fills a gap must be gone so much before its end


def outranks(one: dict[str, Any], other: dict[str, Any], grace: float) -> bool:
    """Say whether one is more important: by priority, then date, then (surely earlier) arrival."""
    mine, theirs = (-one["priority"], one["date"]), (-other["priority"], other["date"])
    return mine < theirs or (mine == theirs and one["arrived_at"] < other["arrived_at"] - grace)


def decided_at(at: list[float], index: int, grace: float) -> float:
    """Say since when a launch may have been decided: earlier, where the pace kept it back."""
    while index >= BURST and at[index] - at[index - BURST] <= grace:
        index -= BURST
    return at[index] - grace


def sure_start(out: Jobs, jobs: dict[str, Any], most: int, now: float, ending: float) -> float:
    """Say when at most ``most`` vCPUs are taken, should all live as long as they may."""
    lives = [(one["at"] + jobs[one["name"]]["max_lifetime_s"], one) for one in out]
    ends = sorted((now if o["ended_at"] <= now + ending else end, o["name"]) for end, o in lives)
    taken = sum(jobs[name]["vcpus"] for _, name in ends)
    for end, name in [(now, ""), *ends]:
        taken -= jobs[name]["vcpus"] if name else 0
        if taken <= most:
            return max(end, now)
    raise ValueError(f"{most} vCPUs are never free")


def is_proven(
    mine: dict[str, Any], passed: Jobs, out: Jobs, jobs: dict[str, Any], limit: int, at: float
) -> bool:
    """Say whether a launch is gone before the first of those passed could surely start."""
    head = min(passed, key=lambda job: (-job["priority"], job["date"], job["arrived_at"]))
    others = [job for job in passed if job is not head]
    left = [one["ended_at"] - at for one in out]  # any first few of those may be known to end
    for ending in {0.0, *(seconds for seconds in left if 0 < seconds <= SHUTTING_DOWN)}:
        seconds = sure_start(out, jobs, limit - head["vcpus"], at, ending) - at
        could_fill = any(job["max_lifetime_s"] + SLACK <= seconds for job in others)
        if mine["max_lifetime_s"] <= seconds and not could_fill:
            return True
    return False


def judge(arrivals: Jobs, launches: Jobs, limit: int, grace: float) -> dict[str, Any]:
    """Count inversions: launches that were right at no moment of the ``grace`` seconds before."""
    jobs = {job["name"]: job for job in arrivals}
    launches = sorted(launches, key=lambda launch: launch["at"])
    times = [launch["at"] for launch in launches]
    first = {launch["name"]: n for n, launch in reversed(list(enumerate(launches)))}
    gone = {launch["name"]: launch["ended_at"] for launch in launches}
    ready = {
        name: max([job["arrived_at"], *(gone.get(one, float("inf")) for one in job["depends"])])
        for name, job in jobs.items()
    }
    found: Any = {"inversions": 0, "with_room": 0, "passes": 0, "over_limit": 0, "examples": []}
    for index, (launch, at) in enumerate(zip(launches, times, strict=True)):
        mine, before = jobs[launch["name"]], launches[:index]
        known = decided_at(times, index, grace)
        taken = sum(jobs[one["name"]]["vcpus"] for one in before if one["ended_at"] > at)
        found["over_limit"] += taken + mine["vcpus"] > limit
        later = [job for name, job in jobs.items() if first.get(name, len(times)) > index]
        rivals = [job for job in later if outranks(job, mine, grace)]
        moments = {known, at, *(t for t in [*ready.values(), *gone.values()] if known < t < at)}
        for moment in sorted(moments):
            passed = [job for job in rivals if ready[job["name"]] <= moment]
            out = [one for one in before if one["ended_at"] > moment]
            if not passed or is_proven(mine, passed, out, jobs, limit, at):
                found["passes"] += bool(passed)
                break
        else:
            found["inversions"] += 1
            found["with_room"] += taken + sum(job["vcpus"] for job in [mine, *passed]) <= limit
            waited = [job["name"] for job in passed[:3]]
            found["examples"].append({"at": at, "launched": mine["name"], "waited": waited})
    order = hashlib.sha256("\n".join(launch["name"] for launch in launches).encode()).hexdigest()
    return found | {"order_sha256": order, "launches": len(launches)}


if __name__ == "__main__":
    files = [Path(name).read_text(encoding="utf-8").splitlines() for name in sys.argv[1:3]]
    asked, launched = [[json.loads(line) for line in lines] for lines in files]
    print(json.dumps(judge(asked, launched, int(sys.argv[3]), float(sys.argv[4]))))
