"""
One instance's process supervisor: starts the guest, finds all its processes, ends them.

Run as a script with ``python -I -S``: standard library only, few imports. The first line of stdin
is the order (JSON); further lines are commands; end of file means that the server died, and then
everything of the instance ends at once. Events leave as JSON lines on stdout.

Nothing here can reach the host: the guest gets its own session, no capabilities, no new
privileges, and as root another user id, by which all its processes are found.
"""

import base64
import ctypes
import errno
import json
import os
import resource
import select
import signal
import stat
import sys
import time

CONSOLE_BYTES = 65_536
EXIT_GRACE = 1.0
"""Seconds a guest has to end by itself after it powered off."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 1, 36, 38, 24


def prctl(option, value):
    """Call prctl(2) where the system has it."""
    try:
        call = ctypes.CDLL(None, use_errno=True).prctl
    except AttributeError:
        return -1
    unsigned = ctypes.c_ulong
    return call(option, unsigned(value), unsigned(0), unsigned(0), unsigned(0))


class Supervisor:
    """State of one guest, from its first process to the last."""

    def __init__(self, order):
        self.order = order
        self.uid = order["uid"]
        self.main = 0
        self.main_ended = False
        self.console = bytearray()
        self.console_sent = 0.0
        self.console_dirty = False
        self.kill_at = None
        self.term_at = None
        self.stopping = False
        self.power = os.open(order["power"], os.O_RDWR | os.O_NONBLOCK)
        self.lines = b""

    # -- starting ---------------------------------------------------------------------------

    def start(self):
        reader, writer = os.pipe()
        self.output = reader
        os.set_blocking(reader, False)
        # The guest must not start before the server could know its process.
        self.main = os.fork()
        if self.main == 0:
            try:
                os.close(reader)
                self.become_guest(writer)
            except BaseException as error:  # the parent's loop must never run in the child
                os.write(writer, ("cannot start: %r\n" % (error,)).encode())
            finally:
                os._exit(127)
        os.close(writer)

    def become_guest(self, writer):
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.closerange(3, 1_024)
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                try:
                    signal.signal(number, signal.SIG_DFL)
                except (OSError, ValueError):
                    pass
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        self.limit()
        self.drop_privileges()
        os.umask(0o022)
        os.chdir(self.order["home"])
        for _ in range(50):
            try:
                os.execve(self.order["argv"][0], self.order["argv"], self.order["environ"])
            except OSError as error:
                if error.errno != errno.ETXTBSY:  # a fork elsewhere still has it open
                    raise
            time.sleep(0.01)

    def limit(self):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        size = self.order["file_bytes"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        if self.uid:
            count = self.order["processes"]
            resource.setrlimit(resource.RLIMIT_NPROC, (count, count))
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("500")  # when memory is short, jobs die before their host
        except OSError:
            pass

    def drop_privileges(self):
        if self.uid:
            for capability in range(64):
                if prctl(PR_CAPBSET_DROP, capability) != 0:
                    break
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)
        if os.geteuid() == 0:
            raise PermissionError("a guest never runs as root")
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    # -- events -----------------------------------------------------------------------------

    def tell(self, event, **fields):
        line = json.dumps(dict(fields, event=event)).encode() + b"\n"
        try:
            os.write(1, line)
        except OSError:
            pass  # the server is gone; the end of stdin says so too

    def send_console(self, force=False):
        now = time.monotonic()
        if self.console_dirty and (force or now - self.console_sent > 0.5):
            self.console_sent, self.console_dirty = now, False
            self.tell("console", data=base64.b64encode(bytes(self.console)).decode())

    def read_output(self):
        for _ in range(16):
            try:
                data = os.read(self.output, 65_536)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    self.output = -1
                return
            if not data:
                os.close(self.output)
                self.output = -1
                return
            self.console += data
            del self.console[:-CONSOLE_BYTES]
            self.console_dirty = True

    def read_power(self):
        try:
            asked = os.read(self.power, 4_096)
        except OSError:
            return
        if asked and self.term_at is None and self.kill_at is None:
            self.tell("power-off")
            self.term_at = time.monotonic() + EXIT_GRACE

    def read_commands(self):
        data = os.read(0, 4_096)
        if not data:
            self.order["grace"] = 0
            self.kill_at = time.monotonic()
            return
        self.lines += data
        *complete, self.lines = self.lines.split(b"\n")
        for line in complete:
            self.obey(line.decode().split())

    def obey(self, words):
        now = time.monotonic()
        if words[0] == "stop" and self.kill_at is None:
            self.signal_main(signal.SIGTERM)
            self.kill_at, self.stopping = now + float(words[1]), True
        elif words[0] == "kill":
            self.kill_at = now
        elif words[0] == "agent":
            self.signal_main(signal.SIGKILL)

    def signal_main(self, number):
        if self.main and not self.main_ended:
            os.kill(self.main, number)

    # -- ending -----------------------------------------------------------------------------

    def reap(self):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.main:
                self.main_ended = True
                self.tell("agent-exit", status=status)

    def must_kill(self):
        now = time.monotonic()
        if self.kill_at is None and self.term_at is not None:
            if now >= self.term_at or self.main_ended:
                left = self.processes()
                for pid in left:
                    kill(pid, signal.SIGTERM)
                # Stragglers of an agent that ended get less time than a whole system would.
                self.kill_at = now + (0.2 if self.main_ended else self.order["grace"])
                return not left
        if self.kill_at is None:
            return False
        if self.stopping:
            return now >= self.kill_at or self.main_ended
        return now >= self.kill_at or not self.processes()

    def processes(self):
        return own_processes(self.uid, os.getpid())

    def end_all(self):
        """Kill until nothing is left; a fork bomb as another user dies by one kill(-1)."""
        while True:
            self.reap()
            if self.output >= 0:
                self.read_output()
            left = self.processes()
            if not left:
                return
            if self.uid:
                kill_user(self.uid)
            else:
                for number in (signal.SIGSTOP, signal.SIGKILL):
                    for pid in self.processes():
                        kill(pid, number)
            time.sleep(0.005)

    def run(self):
        self.start()
        while not self.must_kill():
            readable = [0, self.power] + ([self.output] if self.output >= 0 else [])
            ready, _, _ = select.select(readable, [], [], self.patience())
            if 0 in ready:
                self.read_commands()
            if self.power in ready:
                self.read_power()
            if self.output in ready:
                self.read_output()
            self.reap()
            self.send_console()
        self.end_all()
        self.send_console(force=True)
        remove_tree(self.order["folder"])
        self.tell("gone")

    def patience(self):
        if self.kill_at is not None or self.term_at is not None:
            return 0.02
        return 0.2 if self.console_dirty or not self.main_ended else 5.0


def own_processes(uid, supervisor):
    """Process ids of the guest: by user id as root, otherwise all descendants. No zombies."""
    table = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/status" % name, "rb") as file:
                lines = dict(line.split(b":", 1) for line in file.read(2_000).splitlines()[:12])
            owners = {int(one) for one in lines[b"Uid"].split()}
            table[int(name)] = (int(lines[b"PPid"]), lines[b"State"].split()[0], owners)
        except (OSError, KeyError, ValueError):
            continue
    if uid:
        return [p for p, (_, state, owners) in table.items() if uid in owners and state != b"Z"]
    found = {supervisor}
    grown = True
    while grown:
        more = {pid for pid, (parent, _, _) in table.items() if parent in found} - found
        found |= more
        grown = bool(more)
    found.discard(supervisor)
    return [pid for pid in found if table[pid][1] != b"Z"]


def kill(pid, number):
    try:
        os.kill(pid, number)
    except OSError:
        pass


def kill_user(uid):
    """Kill every process of a user id at once: kill(-1) by a process that became that user."""
    if uid < 1_000:
        raise ValueError("refusing to kill the processes of user %d" % uid)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            if os.getresuid() == (uid, uid, uid):
                os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def remove_tree(folder):
    """Delete a folder of any depth without following links; what cannot be deleted stays."""
    waiting = [folder]
    emptied = []
    while waiting:
        place = waiting.pop()
        emptied.append(place)
        try:
            os.chmod(place, stat.S_IRWXU)
            entries = list(os.scandir(place))
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                try:
                    os.unlink(entry.path)
                except OSError:
                    pass
    for place in reversed(emptied):
        try:
            os.rmdir(place)
        except OSError:
            pass


def main():
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # only the server's pipe decides
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    first = b""
    while not first.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return
        first += byte
    Supervisor(json.loads(first)).run()


if __name__ == "__main__":
    main()
    sys.exit(0)
