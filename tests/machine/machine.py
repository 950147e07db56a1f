"""
A machine in namespaces: real systemd as its first process, real cloud-init, its own disk.

It can end itself, and nothing of its host: it has process, mount, network, IPC and host name
namespaces of its own, the kernel's settings are read-only, and sysrq is out of reach. Its overlay
is mounted in a mount namespace of its own, so that nothing stays mounted whatever dies.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from tests.machine.doors import Network
from tests.machine.rootfs import find_rootfs

RT_POWER_OFF = signal.SIGRTMIN + 4
"""Tells systemd to power off, as EC2's power button does (systemd(1))."""


_LEASH = (
    "setpriv", "--pdeathsig", "KILL",
    "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
)  # fmt: skip
"""Whatever kills whom, all of a machine dies with the process that started it."""


class Machine:
    """One machine; ``start`` boots it, again from the same disk after it ended."""

    def __init__(self, metadata_url, endpoint_url, seconds=200):
        self.name = f"ee2-{uuid.uuid4().hex[:8]}"
        self.home = Path(tempfile.mkdtemp(prefix="machine-"))
        self.deadline = time.monotonic() + seconds
        self.network = Network(self.name)
        self.metadata = self.network.open(("169.254.169.254", 80), _address(metadata_url))
        host, port = _address(endpoint_url)
        self.endpoint = self.network.open(("127.0.0.1", port), (host, port))
        self.process = None
        for name in ("upper", "work", "merged"):
            (self.home / name).mkdir()
        config = self.home / "upper/etc/systemd/system.conf.d"
        config.mkdir(parents=True)
        (config / "endpoint.conf").write_text(
            f"[Manager]\nDefaultEnvironment=AWS_ENDPOINT_URL=http://127.0.0.1:{port}\n"
        )

    def start(self, *command):
        """Boot; with a command, run that as the first process instead."""
        lower, upper = find_rootfs(), self.home / "upper"
        merged = self.home / "merged"
        mount = f"lowerdir={lower},upperdir={upper},workdir={self.home / 'work'}"
        argv = [
            "systemd-nspawn", "--quiet", f"--directory={merged}", f"--machine={self.name}",
            f"--network-namespace-path={self.network.path}", "--register=no", "--keep-unit",
            "--console=read-only", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
            *(command or ("/sbin/machine-init", "systemd.show_status=1")),
        ]  # fmt: skip
        script = f'mount -t overlay overlay -o {mount} {merged} && exec "$@"'
        log = (self.home / "console").open("ab")
        self.process = subprocess.Popen(
            [*_LEASH, "sh", "-c", script, "sh", *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        return self

    def console(self):
        return (self.home / "console").read_text("utf-8", "replace")

    def write(self, path, text, mode=0o644):
        """Put a file onto the disk before the machine boots."""
        place = self.home / "upper" / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def mask(self, unit):
        """Take a unit of systemd's away."""
        place = self.home / "upper/etc/systemd/system" / unit
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to("/dev/null")

    def file(self, path):
        """Return a file that the machine wrote, None when there is none."""
        found = self.home / "upper" / path.lstrip("/")
        return found.read_text("utf-8", "replace") if found.exists() else None

    def processes(self):
        """Return pid -> command line of all processes of the machine."""
        found = {}
        for pid in _below(self.process.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            found[pid] = b" ".join(words).decode("utf-8", "replace").strip()
        return found

    def find(self, words):
        """Return the pids of the processes whose command line has these words."""
        return [pid for pid, line in self.processes().items() if words in line]

    def press_power_button(self):
        os.kill(self.find("/lib/systemd/systemd ")[0], RT_POWER_OFF)

    def cut_power(self):
        """Take the power away; the disk stays."""
        living = _below(self.process.pid)
        self.process.kill()
        self.process.wait()
        end = time.monotonic() + 10
        while any(is_alive(pid) for pid in living):
            assert time.monotonic() < end, f"still there: {self.name}"
            time.sleep(0.02)

    def wait(self, seconds):
        """Wait until the machine has ended; its exit status."""
        return self.process.wait(seconds)

    def wait_for(self, condition, seconds, what):
        end = min(time.monotonic() + seconds, self.deadline)
        while not condition():
            assert time.monotonic() < end, (
                f"{what}: not within {seconds} s\n{self.console()[-3000:]}"
            )
            assert self.process.poll() is None or condition(), (
                f"{what}: ended\n{self.console()[-3000:]}"
            )
            time.sleep(0.1)

    def close(self):
        if self.process and self.process.poll() is None:
            self.cut_power()
        self.network.close()
        shutil.rmtree(self.home, ignore_errors=True)


def is_alive(pid):
    """Say whether a process runs; what nobody has collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _address(url):
    host, _, port = url.split("://")[1].rstrip("/").partition(":")
    return host, int(port)


def _below(root):
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(place.read_text().rpartition(")")[2].split()[1], []).append(place)
        except OSError:
            continue
    found, left = [], [str(root)]
    while left:
        children = [place.parent.name for place in parents.get(left.pop(), [])]
        found += [int(child) for child in children]
        left += children
    return found
