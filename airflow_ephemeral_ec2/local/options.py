"""Command line of ``python -m airflow_ephemeral_ec2.local``."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_ephemeral_ec2.local.machine import Delays


@dataclass(frozen=True)
class Options:
    """All times in seconds."""

    host: str
    port: int
    home: Path
    state_file: Path | None
    api_log: Path
    seed: Path | None
    delays: Delays
    visible: float
    credential_lifetime: float | None
    max_file_bytes: int | None
    end_with_stdin: bool = False
    faults: Path | None = None


def read_options(argv: Sequence[str] | None = None) -> Options:
    """Parse the command line; wrong ones end the program with a usage message."""
    given = _parser().parse_args(argv)
    home = given.home or Path(tempfile.mkdtemp(prefix="ephemeral-ec2-local-"))
    delays = Delays(
        pending=given.pending,
        shutting_down=given.shutting_down,
        stop_grace=given.stop_grace,
        reboot_guard=given.reboot_guard,
    )
    return Options(
        host=given.host,
        port=given.port,
        home=home.absolute(),
        state_file=given.state_file,
        api_log=(given.api_log or home / "api-log.jsonl").absolute(),
        seed=given.seed,
        delays=delays,
        visible=given.visible,
        credential_lifetime=given.credential_lifetime,
        max_file_bytes=given.max_file_bytes,
        end_with_stdin=given.end_with_stdin,
        faults=given.faults,
    )


def _parser() -> argparse.ArgumentParser:
    usual = Delays()
    parser = argparse.ArgumentParser(
        prog="ephemeral-ec2 local",
        description="An EC2 for this machine only: launched instances run as processes.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=0, help="port; 0 (the default) takes a free one")
    add("--home", type=Path, help="folder for logs and instances (default: a new one)")
    add("--state-file", type=Path, help="write URL and keys here as JSON when ready")
    add("--api-log", type=Path, help="where to append the API log (default: HOME/api-log.jsonl)")
    add("--seed", type=Path, help="JSON file: buckets, roles, subnets to create")
    add("--faults", type=Path, help="faults.yaml: what goes wrong from the start")
    add("--pending", type=float, default=usual.pending, metavar="SECONDS")
    add("--shutting-down", type=float, default=usual.shutting_down, metavar="SECONDS")
    add("--stop-grace", type=float, default=usual.stop_grace, metavar="SECONDS",
        help="from SIGTERM to SIGKILL at TerminateInstances")  # fmt: skip
    add("--reboot-guard", type=float, default=usual.reboot_guard, metavar="SECONDS")
    add("--visible", type=float, default=3_600.0, metavar="SECONDS",
        help="how long terminated instances stay visible")  # fmt: skip
    add("--credential-lifetime", type=float, metavar="SECONDS",
        help="cap on temporary credentials, to see renewals")  # fmt: skip
    add("--max-file-bytes", type=int, metavar="BYTES",
        help="cap on one file of an instance (default: its volume's size)")  # fmt: skip
    add("--end-with-stdin", action="store_true",
        help="stop when stdin closes, so that the server cannot outlive its caller")  # fmt: skip
    return parser
