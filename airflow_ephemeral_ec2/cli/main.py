"""``ephemeral-ec2``: the command line; each command is loaded when it is called."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.exit_codes import ExitCode, exit_code_of
from airflow_ephemeral_ec2.cli.terminal import Terminal, silence
from airflow_ephemeral_ec2.exceptions import EphemeralEC2Error, TableError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PACKAGE = "airflow_ephemeral_ec2.cli"
_EPILOG = (
    "Exit codes: 0 done; 1 the job did not succeed and has no exit code; 2 arguments, settings or "
    "table are wrong; 3 AWS cannot be asked or refuses; 130 interrupted. "
    "run returns the job's own exit code."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = make_parser().parse_args(argv)
    terminal = Terminal(is_json=getattr(options, "json", False))
    try:
        command = getattr(import_module(f"{_PACKAGE}.{options.command}"), options.command)
        return int(command(options, terminal))
    except EphemeralEC2Error as error:
        _say_error(error, terminal)
        return exit_code_of(error)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        silence(sys.stdout)
        return ExitCode.OK


def _say_error(error: EphemeralEC2Error, terminal: Terminal) -> None:
    kind = type(error).__name__
    terminal.show_json({"error": {"kind": kind, "message": str(error)}})
    prefix = "" if isinstance(error, TableError) else "ephemeral-ec2: "
    terminal.tell(f"{prefix}{error}", "red")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ephemeral-ec2",
        description="One disposable EC2 instance per job, from a config table.",
        epilog=_EPILOG,
    )
    # By name: an import of the package itself would count as one of all that it offers.
    version = import_module("airflow_ephemeral_ec2").__version__
    parser.add_argument("--version", action="version", version=f"%(prog)s {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_init(commands)
    _add_validate(commands)
    _add_plan(commands)
    _add_push(commands)
    _add_run(commands)
    _add_queue(commands)
    _add_reap(commands)
    _add_local(commands)
    return parser


_Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def _add_init(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("init", help="make a folder with a table, a DAG and jobs")
    parser.add_argument("folder", type=Path, metavar="DIR", help="made when it does not exist")


def _add_validate(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("validate", help="find every error of a table; no AWS call")
    _add_table(parser)
    _add_json(parser)


def _add_plan(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "plan",
        help="show what a job would launch, or what it launched",
        description="Without --run-id nothing is asked: what only AWS knows is a placeholder. "
        "With --run-id the launch record is read from the bucket.",
    )
    _add_job(parser)
    add = parser.add_argument
    add("--date", metavar="YYYY-MM-DD", help="business date (default: today, UTC)")
    add("--run-id", metavar="ID", help="Airflow's run id: show what that run launched")
    add("--dag-id", metavar="ID", help="(default: payer_PAYER)")
    add("--task-id", metavar="ID", help="(default: JOB)")
    add("--map-index", type=int, default=-1, metavar="N", help="(default: not mapped)")
    add("--attempt", type=int, metavar="N", help="(default: the last)")
    add("--placement", type=int, metavar="N", help="from 1 (default: the first, or the last asked)")
    shape = parser.add_mutually_exclusive_group()
    _add_json(shape)
    shape.add_argument(
        "--user-data",
        action="store_true",
        help="write user data: EC2's own bytes to a pipe, readable text to a terminal",
    )
    _add_place(parser)


def _add_push(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "push",
        help="upload code folders and write the table's lock file",
        description="Uploads each code folder under its hash unless the bucket has it, asks EC2 "
        "what the table's instance types and AMIs are, and writes TABLE's .lock.json.",
    )
    _add_table(parser)
    parser.add_argument("--dry-run", action="store_true", help="ask, and write nothing")
    _add_json(parser)
    _add_place(parser)


def _add_run(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="run one job, without Airflow",
        description="Runs one job of one payer and waits for its end. The job's output goes to "
        "stdout, the story to stderr. Jobs that it depends on are not run.",
    )
    _add_job(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--local", action="store_true", help="on this machine, by a local EC2")
    where.add_argument("--aws", action="store_true", help="on AWS; costs money")
    add = parser.add_argument
    add("--date", required=True, metavar="YYYY-MM-DD", help="business date")
    add("--run-id", metavar="ID", help="name of the run (default: made from the time)")
    add("--ignore-order", metavar="REASON",
        help="do not wait for the jobs that it depends on; --local never does")  # fmt: skip
    add("--array-index", type=int, default=0, metavar="N", help="part of a job with array_size")
    _add_json(parser)
    _add_place(parser)
    local = parser.add_argument_group("with --local")
    add = local.add_argument
    add("--input", type=Path, metavar="DIR", help="upload DIR to incoming/PAYER/DATE/ first")
    add("--output", type=Path, metavar="DIR", help="download payers/PAYER/ to DIR afterwards")
    add("--data-bucket", metavar="NAME", help="bucket of both (default: the row's env.DATA_BUCKET)")
    add("--keep", action="store_true", help="leave the local EC2 running until Ctrl-C")
    add("--home", type=Path, metavar="DIR", help="folder for its files (default: a temporary one)")


def _add_queue(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "queue",
        help="show who waits for what and behind whom; hold, release or promote a job",
        description="Shows what the controller would decide now. Needs the bucket only: no EC2 "
        "call, no Airflow. With hold, release or promote an order is recorded: who, when and why.",
    )
    add = parser.add_argument
    add("--explain", nargs=2, metavar=("PAYER", "JOB"), help="all that decides about this job")
    add("--date", metavar="YYYY-MM-DD", help="business date, with --explain (default: all)")
    add("--rows", type=_whole, default=50, metavar="N", help="rows per table, 0: all (default: 50)")
    add("--watch", action="store_true", help="refresh until Ctrl-C")
    add("--interval", type=float, default=5.0, metavar="SECONDS",
        help="between two looks of --watch (default: 5)")  # fmt: skip
    _add_json(parser)
    _add_place(parser)
    actions = parser.add_subparsers(dest="queue_action", metavar="hold|release|promote")
    for name, text in (
        ("hold", "let a job wait at the door; what runs goes on"),
        ("release", "take hold and promotion back"),
        ("promote", "let a waiting job in before all others"),
    ):
        # Options that are not given here must not undo those before the action.
        action = actions.add_parser(name, help=text, argument_default=argparse.SUPPRESS)
        action.add_argument("payer", metavar="PAYER")
        action.add_argument("job", metavar="JOB")
        action.add_argument("--date", metavar="YYYY-MM-DD", help="business date (default: all)")
        action.add_argument("--reason", required=True, metavar="TEXT", help="why; recorded")
        action.add_argument("--by", metavar="NAME", default=None,
            help="who; recorded (default: login name and host)")  # fmt: skip
        _add_json(action)
        _add_place(action)


def _whole(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text}: write 0 (all) or a positive number")
    return number


def _add_reap(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "reap",
        help="end machines, volumes and interfaces that nobody needs any more",
        description="Ends what carries this environment's tag and outlived its limits or its "
        "attempt. Nothing is ended that was not suspected by an earlier pass: of this call, or of "
        "the last one, which the bucket remembers. Where the bucket cannot be read, only what EC2 "
        "itself says counts: age, stopped, stuck. Exit code 3: something could not be asked or ended.",
    )
    add = parser.add_argument
    add("--dry-run", action="store_true", help="say what would be ended, and end nothing")
    add("--look-in", action="append", metavar="REGION",
        help="region to look at, may be repeated (default: the bucket's)")  # fmt: skip
    add("--passes", type=int, default=1, metavar="N", help="passes of this call (default: 1)")
    add("--interval", type=float, default=300.0, metavar="SECONDS",
        help="between two passes (default: 300)")  # fmt: skip
    add(
        "--print-lifecycle",
        action="store_true",
        help="write the bucket's lifecycle rules; do nothing",
    )
    _add_json(parser)
    _add_place(parser)


def _add_local(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("local", help="run a local EC2 until Ctrl-C")
    add = parser.add_argument
    add("--port", type=int, default=0, help="(default: a free one)")
    add("--seed-from", metavar="TABLE", help="make everything that this table names")
    add("--faults", type=Path, metavar="FILE", help="faults.yaml: what goes wrong, and when")
    add("--home", type=Path, metavar="DIR", help="folder for its files (default: a temporary one)")
    add("--environment", metavar="NAME", help="(default: demo)")
    add("--bucket", metavar="NAME", help="bucket of record (default: ephemeral-ec2-state)")
    add("--region", metavar="REGION", help="(default: us-east-1)")
    _add_json(parser)


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", metavar="TABLE", help="config table, .yaml or .csv")


def _add_job(parser: argparse.ArgumentParser) -> None:
    _add_table(parser)
    parser.add_argument("payer", metavar="PAYER")
    parser.add_argument("job", metavar="JOB")


def _add_json(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_place(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where", "default: [ephemeral_ec2] of airflow.cfg or env")
    group.add_argument("--environment", metavar="NAME", help="environment id")
    group.add_argument("--bucket", metavar="NAME", help="bucket of record")
    group.add_argument("--region", metavar="REGION", help="region of the bucket")
    group.add_argument("--endpoint-url", metavar="URL", help="instead of AWS, like a local EC2")


if __name__ == "__main__":
    sys.exit(main())
