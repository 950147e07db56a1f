"""``python -m airflow_ephemeral_ec2.local``: serve the local EC2 until it is told to stop."""

import sys
from collections.abc import Sequence

from airflow_ephemeral_ec2.local.options import read_options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server; returns 0 after a clean stop and 2 for a mistake of the user."""
    options = read_options(argv)
    from airflow_ephemeral_ec2.local.server import LocalServer  # noqa: PLC0415 - --help stays fast

    try:
        server = LocalServer(options)
        server.prepare()
    except (OSError, ValueError) as error:
        sys.stderr.write(f"ephemeral-ec2 local: {error}\n")
        return 2
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
