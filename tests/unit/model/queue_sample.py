"""A queue with ties of every kind, in a module that a fresh interpreter loads quickly."""

from airflow_ephemeral_ec2.model.admission import Queue, admit
from airflow_ephemeral_ec2.model.queue import EntryState, Stage
from airflow_ephemeral_ec2.model.spec import Limits
from tests.unit.model.queue_entries import make_entry

NOW = 100_000.0
_POOL = "us-east-1/1"


def decide_sample():
    """Decide about a queue with ties of every kind; the input is the same in every process."""
    entries = [
        make_entry(
            f"{n:04d}", ("member", "claims")[n % 2], payer=("acme", "pea", "zeta")[n % 3],
            priority=(100, 500)[n % 2], vcpus=n % 7 + 1, is_backfill=n % 5 == 0,
            capacity_type=("spot", "on-demand", "spot-then-on-demand")[n % 3],
            max_runtime=(60, 36_000)[n % 2],
        )
        for n in range(60)
    ]  # fmt: skip
    states = {
        entry.name: EntryState(
            sequence=n + 1, stage=Stage.LAUNCHED if n < 6 else Stage.WAITING,
            vcpus=entry.vcpus if n < 6 else 0, launched_at=NOW if n < 6 else None,
        )
        for n, entry in enumerate(entries)
    }  # fmt: skip
    limits = Limits(vcpus=40, spot=12, payers={"acme": 16}, jobs={"claims": 20})
    queue = Queue(entries, states, {entry.name: _POOL for entry in entries})
    decision = admit(queue, {_POOL: limits}, NOW)
    waiting = [[name, wait.reason, wait.behind] for name, wait in decision.waiting.items()]
    return [list(decision.admitted), waiting]
