"""The cases of an attempt: what is done to the task, and what must come of machine and work."""

from dataclasses import asdict, dataclass

LAUNCH_RECORD = ("PutObject", "/launch.json")
LAUNCH = ("RunInstances", "")


@dataclass(frozen=True)
class Expected:
    """What the bucket, EC2, the job's own counter and Airflow must say at the end."""

    outcomes: tuple[str, ...]
    """Of all attempts, in order."""
    machines: int
    executions: int
    state: str = "success"

    def is_met_by(self, found):
        """Whether evidence says the same, and no attempt ran its work twice."""
        return (
            len(found.outcomes) == len(self.outcomes)
            and all(
                one in wanted.split(" or ")
                for one, wanted in zip(found.outcomes, self.outcomes, strict=True)
            )
            and found.machines == found.tokens == self.machines
            and found.executions == self.executions
            and found.most_executions_of_an_attempt <= 1
            and found.living == 0
            and found.state == self.state
        )


ONCE = Expected(("succeeded",), machines=1, executions=1)
TWICE = Expected(("succeeded", "succeeded"), machines=2, executions=2)
AFTER_FAILURE = Expected(("job_failed", "succeeded"), machines=2, executions=2)
AFTER_KILL = Expected(("killed", "succeeded"), machines=2, executions=2)
AFTER_KILL_OR_SUPERSEDED = Expected(("killed or superseded", "succeeded"), machines=2, executions=2)
"""Whoever is first: the trigger that is told of the clear, or the next try."""
AFTER_SUPERSEDED = Expected(("superseded", "succeeded"), machines=1, executions=1)


@dataclass(frozen=True)
class Case:
    """One row of the table in ``docs/attempts.md``, and one DAG."""

    name: str
    title: str
    script: object
    """Takes a ``Play`` and yields what it waits for, a callable each."""
    expected: Expected
    deferrable: bool = True
    retries: int = 2
    retry_delay: float = 1.0
    first_exit: int = 0
    first_seconds: float = 0.2
    environment: str = ""
    has_other_task: bool = False
    is_nightly: bool = False
    """Not part of every ``make test``: two cores need minutes for all of them."""

    @property
    def dag_id(self):
        return f"case_{self.name}"

    def as_row(self):
        """For the table and the DAG file."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in ("script", "expected")
        }


# -- what is done --------------------------------------------------------------------------


def run_once(play):
    play.trigger()
    yield play.has_ended


def crash_at(call, when):
    """Let the process that makes an AWS call for this job die there, once."""

    def script(play):
        play.arm(*call, when)
        play.trigger()
        yield play.has_crashed
        yield play.has_ended

    return script


def clear_when_ended(play):
    """Not before the run has ended: Airflow 3.3 may end a run whose task is cleared just then."""
    play.trigger()
    yield play.has_run_ended
    play.clear()
    yield play.has_ended


def clear_while(state):
    def script(play):
        play.trigger()
        yield lambda: play.state() == state and play.executions() == 1
        play.clear()
        yield lambda: play.executions() == 2
        yield play.has_ended

    return script


def clear_other(play):
    play.trigger()
    yield lambda: play.state("other") == "success" and play.executions() == 1
    play.clear("other")
    yield lambda: play.state("other") == "success" and play.has_ended()


def edit_retries_then_clear(play):
    """The sum of tries made and new retries is the old number of tries."""
    play.trigger()
    yield play.has_run_ended
    play.edit_retries(1)
    yield lambda: play.has_serialized_retries(1)
    play.clear()
    yield play.has_ended


def edit_retries_then_retry(play):
    play.arm(*LAUNCH_RECORD, "after")
    play.trigger()
    yield play.has_crashed
    play.edit_retries(3)
    yield play.has_ended


def delete_and_make_again(play):
    play.trigger()
    yield play.has_run_ended
    play.delete_run()
    play.trigger()
    yield play.has_ended


def reprocess(play):
    play.trigger()
    yield play.has_run_ended
    play.reprocess()
    yield lambda: play.executions() == 2
    yield play.has_ended


def run_twice_at_once(play):
    play.trigger()
    yield lambda: play.state() == "running"
    play.run_once_more()
    yield play.has_ended


CASES = (
    Case("first-try", "first try", run_once, ONCE, is_nightly=True),
    Case("no-record", "worker dies before the launch record, retry",
         crash_at(LAUNCH_RECORD, "before"), ONCE, is_nightly=True),
    Case("record", "worker dies after the launch record, retry",
         crash_at(LAUNCH_RECORD, "after"), ONCE),
    Case("worker-no-launch", "worker dies before RunInstances (`deferrable=False`), retry",
         crash_at(LAUNCH, "before"), ONCE, deferrable=False, environment="no-launch", is_nightly=True),
    Case("worker-launch", "worker dies after RunInstances (`deferrable=False`), retry",
         crash_at(LAUNCH, "after"), ONCE, deferrable=False, environment="launch"),
    Case("triggerer-no-launch", "triggerer dies before RunInstances",
         crash_at(LAUNCH, "before"), ONCE, is_nightly=True),
    Case("triggerer-launch", "triggerer dies after RunInstances",
         crash_at(LAUNCH, "after"), ONCE),
    Case("job-failed", "the job fails, retry", run_once, AFTER_FAILURE, first_exit=75, is_nightly=True),
    Case("clear-success", "clear of a success", clear_when_ended, TWICE),
    Case("clear-failure", "clear of a failure", clear_when_ended, AFTER_FAILURE, first_exit=65, is_nightly=True),
    Case("clear-running", "clear of a running task (`deferrable=False`)",
         clear_while("running"), AFTER_KILL, deferrable=False, environment="clear",
         first_seconds=120),
    Case("clear-deferred", "clear of a deferred task", clear_while("deferred"),
         AFTER_KILL_OR_SUPERSEDED, first_seconds=120),
    Case("clear-other", "clear of another task of the run", clear_other, ONCE,
         has_other_task=True, first_seconds=6, is_nightly=True),
    Case("edit-clear", "`retries` edited, then clear of a success", edit_retries_then_clear, TWICE),
    Case("edit-retry", "worker dies after the launch record, `retries` edited, retry",
         edit_retries_then_retry, AFTER_SUPERSEDED, retry_delay=8, is_nightly=True),
    Case("made-again", "run deleted and made again with the same run id",
         delete_and_make_again, TWICE),
    Case("backfill", "backfill with reprocessing of a success", reprocess, TWICE,
         deferrable=False, environment="backfill", is_nightly=True),
    Case("twice-at-once", "two schedulers; `airflow tasks run` while it runs (2.11)",
         run_twice_at_once, ONCE, deferrable=False, first_seconds=12),
)  # fmt: skip


def table_rows(cases=CASES):
    """Return the rows of the table in ``docs/attempts.md``."""
    for case in cases:
        wanted = case.expected
        outcomes = ", then ".join(
            " or ".join(f"`{name}`" for name in one.split(" or ")) for one in wanted.outcomes
        )
        yield f"| {case.title} | {outcomes} | {wanted.machines} | {wanted.executions} |"
