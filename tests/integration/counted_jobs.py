"""Jobs that count their own executions, and what the local EC2's API log says about launches."""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.model.launch_request import render_request
from tests.integration.engine import Engine


class SkippingClock:
    """The host's time, and leaps ahead, so that nobody waits for minutes."""

    def __init__(self):
        self.ahead = 0.0

    def now(self):
        return time.time() + self.ahead

    def observe(self, header):
        pass


class CountingEngine(Engine):
    """An engine whose jobs leave a file each time they run."""

    def __init__(self, cloud, make_spec):
        super().__init__(cloud, make_spec)
        self.store.clock = SkippingClock()
        # What earlier tests were refused is none of this test's business.
        self.forget_refusals()
        self._folder = Path(tempfile.mkdtemp(prefix="counted-jobs-"))
        self._folder.chmod(0o777)  # instances of a root server are other users

    def remove(self):
        shutil.rmtree(self._folder)

    def counted(self, then="true", **changes):
        """Open an attempt whose job counts itself and then does something else."""
        return self.open(command=self.count_and(then), **changes)

    def count_and(self, then):
        # One file each: instances are different users, who may not write to each other's.
        return ["sh", "-c", f"mktemp {self._folder}/run.XXXXXXXX && {then}"]

    def new_file(self):
        """Return a path that is not there, for a job to wait for."""
        return self._folder / f"go-{time.monotonic_ns()}"

    @property
    def runs(self):
        """How often the work was done."""
        return len(list(self._folder.glob("run.*")))

    def renewed(self, events):
        """Make a controller that notes when it makes its clients anew."""
        return Controller(self.store, lambda *_: self.fleet, renew=lambda: events.append("renewed"))

    def machines(self, opened):
        """Return instance id -> state of an attempt's machines, as EC2 shows them."""
        return {m.instance_id: m.state for m in self.fleet.find_attempt(opened.jobkey, 1)}

    def launch_calls(self, opened):
        """Return (placement, code of the answer) of each RunInstances of an attempt, in order."""
        index = {p.client_token: i for i, p in enumerate(opened.record.placements)}
        return [
            (index[call["params"]["ClientToken"]], call["code"])
            for call in self.cloud.calls("RunInstances")
            if call["params"].get("ClientToken") in index
        ]

    def request(self, opened, placement=0, **changes):
        return render_request(opened.record, placement) | changes


@contextlib.contextmanager
def counting_engine(cloud, make_spec):
    """Lend an engine; no fault of a test and no machine of it outlives the block."""
    engine = CountingEngine(cloud, make_spec)
    yield engine
    cloud.clear_faults()
    engine.remove()
    assert {i: s for i, s in cloud.instances().items() if s != "terminated"} == {}
