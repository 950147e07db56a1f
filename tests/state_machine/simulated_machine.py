"""A machine: EC2's view of it, and a guest that goes through the agent's steps one by one."""

import base64
import json
import re
import zlib
from datetime import UTC, datetime
from enum import IntEnum
from functools import cache
from hashlib import sha256

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.agent.report import console_marker, empty_report, encode
from airflow_ephemeral_ec2.local.user_data_parts import read_user_data
from tests.state_machine.simulated_s3 import s3_error

ACCOUNT, REGION = "123456789012", "us-east-1"
OUT_OF_MEMORY = 137
ALIVE = frozenset({"pending", "running", "shutting-down", "stopping"})


class Step(IntEnum):
    """What the guest does next."""

    BOOT = 0
    LOCK = 1
    PREPARE = 2
    START = 3
    WORK = 4
    REPORT = 5
    MARKER = 6
    POWER_OFF = 7
    OFF = 8


@cache
def read_agent_config(user_data):
    """Find the agent's configuration where the agent itself finds it."""
    script = read_user_data(user_data).scripts[0].decode()
    blob = re.search(r'main\("([^"]+)","', script).group(1)
    return json.loads(zlib.decompress(base64.b64decode(blob)))


class SimulatedMachine:
    """One machine; nothing in it happens by itself but its watchdog."""

    def __init__(self, world, instance_id, request):
        self.world, self.instance_id, self.request = world, instance_id, request
        self.config = read_agent_config(request["UserData"])
        self.arn = contract.instance_arn(REGION, ACCOUNT, instance_id)
        self.launched_at = world.clock.now
        self.tags = {t["Key"]: t["Value"] for t in request["TagSpecifications"][0]["Tags"]}
        self.subnet = request["NetworkInterfaces"][0]["SubnetId"]
        self.market = "spot" if "InstanceMarketOptions" in request else "on-demand"
        self.state, self.reason, self.ended_at = "pending", "", None
        self.step, self.report = Step.BOOT, empty_report(self.config, "0" * 64)
        self.lock_body = b""
        self.hidden_until = 0.0
        self.is_evicted = self.is_hung = self.is_impaired = self.is_stuck = False
        self.is_offline = self.is_told = self.has_notice = self.has_console = False
        self.console, self.posted_at = "", None
        self.is_lying = False
        """The report that it sends and the console contradict each other."""
        self.is_ended_by_others = False
        """Somebody stopped or terminated it through the EC2 API, without us."""
        self.exit_code = None

    # -- what EC2 knows ----------------------------------------------------------------------

    @property
    def attempt(self):
        return self.config["jobkey"], self.config["attempt"]

    @property
    def is_alive(self):
        return self.state in ALIVE or self.state == "stopped"

    @property
    def is_shown(self):
        return not self.is_evicted and self.world.clock.now >= self.hidden_until

    @property
    def is_holder(self):
        return self.world.oracle.holder_of(*self.attempt) == self.instance_id

    @property
    def is_overdue(self):
        """Whether it is older than its work may get, as the engine counts."""
        config = self.config
        longest = config["boot_timeout"] + config["max_runtime"] + config["stop_grace"]
        return self.world.clock.now - self.launched_at > longest

    @property
    def may_go_on(self):
        """Whether nobody has asked for its end: it runs, or keeps its disk."""
        return self.is_alive and self.state != "shutting-down"

    @property
    def may_work(self):
        """Whether the guest runs and has not yet finished the work."""
        return self.state in ALIVE and self.step <= Step.WORK and not self.is_hung

    def end(self, reason, *, is_told=True):
        """Begin to end, as the API, EC2 or the guest asked."""
        if self.state in ("pending", "running"):
            self.state, self.reason = "shutting-down", reason
        elif self.state in ("stopping", "stopped"):
            self.state, self.reason = "shutting-down", reason
            self.step = Step.OFF
        self.is_told = self.is_told or is_told

    def give_notice(self):
        """EC2 will take this spot machine back; the agent ends the machine before that."""
        if self.state == "running" and self.market == "spot" and not self.is_told:
            self.world.reach("machine: spot notice")
            self.is_told = self.has_notice = True

    def end_by_others(self):
        """Somebody terminates it through the EC2 API."""
        self.is_ended_by_others = True
        self.end("Client.UserInitiatedShutdown")

    def stop(self):
        if self.state in ("pending", "running"):
            self.is_ended_by_others = True
            self.state, self.reason = "stopping", "Client.UserInitiatedShutdown"
            self.is_told = True

    def lose_host(self):
        if self.state in ("pending", "running"):
            self.state, self.reason, self.step = "shutting-down", "Server.InternalError", Step.OFF

    def settle(self, *, posts_console=True):
        """Complete what EC2 has begun; stuck ones only end by force."""
        if self.state == "pending":
            self.state = "running"
        elif self.state == "shutting-down" and not self.is_stuck:
            self.state, self.step, self.ended_at = "terminated", Step.OFF, self.world.clock.now
            if posts_console:
                self.posted_at = self.ended_at
        elif self.state == "stopping":
            self.state, self.step = "stopped", Step.OFF

    def pass_time(self):
        """Let the watchdog of the boothook and EC2's memory do their part."""
        now = self.world.clock.now
        lifetime = self.config["max_lifetime"]
        if self.state == "running" and not self.is_hung and now - self.launched_at > lifetime:
            self.world.reach("machine: watchdog")
            self.end("Client.InstanceInitiatedShutdown", is_told=False)
            self.step = Step.OFF
        if self.state == "terminated" and now - self.ended_at > 3_600:
            self.is_evicted = True

    # -- what the guest does -----------------------------------------------------------------

    def act(  # noqa: C901 - a table of steps
        self, *, is_deaf=False, exit_code=0, loses_answer=False
    ):
        """Go one step on; a deaf guest has not noticed yet that it is to end."""
        if self.state not in ALIVE or self.is_hung or self.step is Step.OFF:
            return
        if self.is_told and not is_deaf and Step.LOCK <= self.step <= Step.WORK:
            self._interrupt()
            return
        match self.step:
            case Step.BOOT:
                self.step = Step.LOCK
                self.report |= {"instance_id": self.instance_id, "phase": contract.PHASE_LOCK}
            case Step.LOCK:
                self._take_lock(loses_answer)
            case Step.PREPARE:
                self.step, self.report["phase"] = Step.START, contract.PHASE_CODE
            case Step.START:
                self.step, self.report["phase"] = Step.WORK, contract.PHASE_JOB
                self.world.oracle.see_work_start(self)
            case Step.WORK:
                self._finish_work(exit_code)
            case Step.REPORT:
                self._send_report(loses_answer)
            case Step.MARKER:
                self._mark_console()
            case Step.POWER_OFF:
                self.end("Client.InstanceInitiatedShutdown", is_told=False)
                self.step = Step.OFF

    def _mark_console(self):
        said = self.report
        if self.is_lying:
            said = said | {"exit_code": 66}
        self.console, self.step = console_marker(said) + "\r\n", Step.POWER_OFF

    def begin_to_lie(self):
        """Somebody forges its report, and ends it before it can power itself off."""
        if self.step is Step.WORK and self.state == "running" and not self.is_offline:
            self.world.reach("machine: forged report")
            self._finish_work(0)
            self._send_report(loses_answer=False)
            self.is_lying = True
            self._mark_console()
            self.end_by_others()

    def fail_to_start(self, reason):
        """EC2 accepted the launch, and could not do it."""
        if self.state == "pending" and self.step is Step.BOOT:
            self.state, self.reason, self.step = "shutting-down", reason, Step.OFF

    def find_bad_code(self):
        """What it unpacks is not what was pushed: it says so and never begins."""
        if self.step is Step.PREPARE and self.state == "running":
            error = {"kind": contract.ERROR_CODE_HASH, "message": "not what was pushed"}
            self.report |= {"phase": contract.PHASE_CODE, "error": error}
            self.step = Step.REPORT

    def reboot(self):
        """User data does not run again: the boothook ends the second boot."""
        if self.state in ("pending", "running") and not self.is_hung:
            self.step = Step.POWER_OFF

    def _interrupt(self):
        if self.step is Step.WORK:
            self.report |= {"exit_code": 143, "wall_seconds": 1.0}
        self.report |= {"interrupted": True, "interrupted_by": "spot" if self.has_notice else None}
        self.step = Step.REPORT

    def _take_lock(self, loses_answer):
        config, now = self.config, self.world.clock.now
        if self.is_offline:
            if now - self.launched_at > config["boot_timeout"]:
                self.report["error"] = {"kind": contract.ERROR_NETWORK, "message": "no S3"}
                self.step = Step.REPORT
            return
        key = contract.start_lock_key(
            config["env"], config["jobkey"], config["attempt"], config["nonce"]
        )
        mine = {
            "instance_id": self.instance_id,
            "arn": self.arn,
            "boot_id": f"boot-of-{self.instance_id}",
            "nonce": config["nonce"],
            "taken_at": datetime.fromtimestamp(now, UTC).isoformat(),
        }
        won = self._put_once(key, encode(mine), loses_answer)
        if not won:
            # The answer to an earlier try may have been lost.
            won = self.world.s3.objects[key] == encode(mine)
        if won:
            self.report["lock_at"] = mine["taken_at"]
            self.step = Step.PREPARE
        else:
            self.world.reach("machine: superseded")
            self.report["phase"] = contract.PHASE_SUPERSEDED
            self.step = Step.REPORT

    def _finish_work(self, exit_code):
        ran = self.world.clock.now - self.launched_at
        is_late = ran > self.config["boot_timeout"] + self.config["max_runtime"]
        code = 143 if is_late else exit_code
        self.exit_code = code
        self.report |= {"exit_code": code, "timed_out": is_late, "wall_seconds": 3.0}
        self.report["oom"] = code == OUT_OF_MEMORY
        self.step = Step.REPORT

    def _send_report(self, loses_answer):
        if not self.is_offline:
            self._put_once(
                contract.report_key(self.config["env"], self.arn), encode(self.report), loses_answer
            )
        self.step = Step.MARKER

    def _put_once(self, key, body, loses_answer):
        for is_lost in (loses_answer, False):
            try:
                self.world.s3.put_object(Bucket="", Key=key, Body=body, IfNoneMatch="*")
            except type(s3_error("", 0, "")):
                return False
            if not is_lost:
                return True
            self.world.reach("fault: machine's answer lost")
        return True


def digest_request(request):
    """Fingerprint of what a client token binds."""
    facts = {k: v for k, v in request.items() if k != "ClientToken"}
    return sha256(repr(sorted(facts.items())).encode()).hexdigest()
