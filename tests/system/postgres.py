"""A PostgreSQL of our own: the distribution's programs, a fresh cluster in a folder of ours."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import psycopg2

from tests.system.services import Service, ServiceError, free_ports, plain_environment, wait_until

PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")
SETTINGS = {
    # The cluster is thrown away: a crash of the host need not be survived.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "autovacuum": "off",
}


def find_programs():
    """Return the folder that has ``initdb`` and ``postgres``, or None."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    found = sorted(
        folder
        for place in PLACES
        for folder in Path("/").glob(place[1:])
        if (folder / "initdb").exists()
    )
    return found[-1] if found else None


class Postgres:
    """``start``, make databases, ``stop``; nobody but this machine can reach it, without password."""

    def __init__(self, home):
        self.home = Path(home)
        (self.port,) = free_ports(1)
        self._service = None

    def start(self):
        """
        Make the cluster and wait until it answers.

        :raises ServiceError: PostgreSQL is not installed, or does not start
        """
        programs = find_programs()
        if programs is None:
            message = "no PostgreSQL found; Debian: apt-get install postgresql"
            raise ServiceError(message)
        data = self.home / "data"
        data.mkdir(parents=True)
        prefix = _as_somebody_unprivileged(data)
        made = subprocess.run(
            [*prefix, str(programs / "initdb"), "-D", str(data), "-U", "airflow", "-A", "trust",
             "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"],
            capture_output=True, text=True, check=False, cwd=data, env=plain_environment(),
        )  # fmt: skip
        if made.returncode:
            message = f"initdb ended with {made.returncode}:\n{made.stderr}"
            raise ServiceError(message)
        options = [word for pair in SETTINGS.items() for word in ("-c", "=".join(pair))]
        command = [*prefix, str(programs / "postgres"), "-D", str(data), "-p", str(self.port)]
        log = self.home / "postgres.log"
        self._service = Service(
            "postgres", [*command, *options], plain_environment(), log, grace=0.2
        )
        wait_until(self._answers, 30, "PostgreSQL", [self._service])

    def make_database(self, name):
        """Make an empty database and return its address for SQLAlchemy."""
        connection = self.connect("postgres")
        try:
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{name}"')
        finally:
            connection.close()
        return f"postgresql+psycopg2://airflow@127.0.0.1:{self.port}/{name}"

    def connect(self, name):
        """Open a connection that commits each statement."""
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user="airflow", dbname=name, connect_timeout=5
        )
        connection.autocommit = True
        return connection

    def dump(self, name, path):
        """Write everything of a database to a file."""
        part = path.with_suffix(".part")
        self._run_program("pg_dump", name, "-f", part)
        part.rename(path)

    def restore(self, name, path):
        """Fill an empty database from a file that ``dump`` wrote."""
        self._run_program("psql", name, "-q", "-v", "ON_ERROR_STOP=1", "-f", path, "-o", os.devnull)

    def _run_program(self, program, database, *options):
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "airflow", "-d", database]
        ended = subprocess.run(
            [str(find_programs() / program), *where, *map(str, options)],
            capture_output=True, text=True, check=False, env=plain_environment(),
        )  # fmt: skip
        if ended.returncode:
            message = f"{program} ended with {ended.returncode}:\n{ended.stderr}"
            raise ServiceError(message)

    def stop(self):
        if self._service is not None:
            self._service.stop()

    def _answers(self):
        try:
            self.connect("postgres").close()
        except psycopg2.OperationalError:
            return False
        return True


def _as_somebody_unprivileged(data):
    """PostgreSQL refuses to run as root: give the folder away and return how to become its owner."""
    if os.getuid() != 0:
        return []
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(data, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
