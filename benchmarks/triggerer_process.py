"""A trigger runner under measurement: started, listened to, weighed by the operating system."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.endpoint_process import REPOSITORY, EndpointProcess
from benchmarks.records import BUCKET, ENVIRONMENT, REGION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Weight:
    """What a process has used, as the operating system says."""

    at: float
    cpu_seconds: float
    rss_mb: float
    uss_mb: float
    """Memory that would be free again without this process."""
    threads: int


@dataclass
class Heard:
    """What the runner said so far; times are ``time.monotonic()``."""

    runner_pid: int = 0
    started: dict[int, float] = field(default_factory=dict)
    fired: dict[int, float] = field(default_factory=dict)
    ended: dict[int, bool] = field(default_factory=dict)
    """Trigger -> whether its event is a good one."""
    failures: list[str] = field(default_factory=list)
    blocked: list[tuple[float, float]] = field(default_factory=list)
    """(when, seconds) of the runner's own watchdog."""
    xcoms: list[float] = field(default_factory=list)
    """When triggers wrote what their tasks wait for."""
    logs: list[str] = field(default_factory=list)
    is_over: bool = False

    def take(self, line: dict[str, Any]) -> None:
        match line["what"]:
            case "runner":
                self.runner_pid = line["pid"]
            case "started":
                self.started[line["trigger"]] = line["t"]
            case "fired":
                self.fired[line["trigger"]] = line["t"]
            case "event":
                self._take_end(line["trigger"], line["text"], ok=line["ok"])
            case "blocked":
                self.blocked.append((line["t"], line["seconds"]))
            case "xcom":
                self.xcoms.append(line["t"])
            case "log":
                self.logs.append(f"{line['level']}: {line['text']} {line['detail']}")

    def _take_end(self, trigger: int, text: str, *, ok: bool) -> None:
        self.ended[trigger] = ok
        if not ok:
            self.failures.append(text)


class TriggererProcess:
    """One supervisor and its runner."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self._folder = process, folder
        self.heard = Heard()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - a pipe was asked for
        for line in self.process.stdout:
            if line.startswith("{"):
                self.heard.take(json.loads(line))
        self.heard.is_over = True

    def wait_for(self, what: Callable[[Heard], bool], seconds: float) -> bool:
        """Wait until the runner has said something; False when it did not in time."""
        until = time.monotonic() + seconds
        while not what(self.heard):
            if time.monotonic() > until or self.heard.is_over:
                return False
            time.sleep(0.1)
        return True

    def weigh(self) -> Weight:
        runner = psutil.Process(self.heard.runner_pid)
        times, memory = runner.cpu_times(), runner.memory_full_info()
        return Weight(
            time.monotonic(),
            times.user + times.system,
            memory.rss / 1e6,
            memory.uss / 1e6,
            runner.num_threads(),
        )

    def gaps(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Return the seconds for which the event loop was away, as the probe saw it."""
        path = self._folder / "gaps.jsonl"
        if not path.exists():
            return []
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [seconds for at, seconds in lines if since <= at <= until]


@contextlib.contextmanager
def triggerer(
    python: str, endpoint: EndpointProcess, triggers: list[dict[str, Any]], folder: Path
) -> Iterator[TriggererProcess]:
    """Run the triggers, and the probe of the event loop as the last one, in a runner."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = {
        "classpath": "benchmarks.loop_probe.LoopProbeTrigger",
        "kwargs": {"path": str(folder / "gaps.jsonl")},
    }
    file = folder / "triggers.json"
    file.write_text(json.dumps([probe, *triggers]))
    with (
        (folder / "stderr.txt").open("w") as errors,
        subprocess.Popen(
            [python, "-m", "benchmarks.triggerer", str(file)],
            cwd=REPOSITORY,
            env=_environ(endpoint, folder),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        running = TriggererProcess(process, folder)
        try:
            yield running
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            running.reader.join()


def _environ(endpoint: EndpointProcess, folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **kept,
        **endpoint.environ,
        "PYTHONPATH": str(REPOSITORY),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__EPHEMERAL_EC2__ENVIRONMENT": ENVIRONMENT,
        "AIRFLOW__EPHEMERAL_EC2__BUCKET": BUCKET,
        "AIRFLOW__EPHEMERAL_EC2__REGION": REGION,
    }
