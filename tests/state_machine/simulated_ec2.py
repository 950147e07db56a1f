"""EC2 in memory: tokens, capacity, states, and the calls of ``hooks/fleet.py`` and the reaper."""

from datetime import UTC, datetime

from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.model.plan import TAG_ENVIRONMENT
from tests.state_machine.simulated_machine import ACCOUNT, SimulatedMachine, digest_request

ZONES = {"subnet-0a1": "us-east-1a", "subnet-0b2": "us-east-1b"}
TOKEN_SECONDS = 86_400.0
"""A token is good until this long after its instance's end."""


def ec2_error(code, status=400, operation="RunInstances"):
    response = {"Error": {"Code": code, "Message": "no"}}
    return ClientError(response | {"ResponseMetadata": {"HTTPStatusCode": status}}, operation)


class SimulatedEC2:
    """One account and region; tokens are zonal and bind their parameters."""

    def __init__(self, world):
        self._world = world
        self.machines: dict[str, SimulatedMachine] = {}
        self._tokens: dict[tuple[str, str], tuple[str, str]] = {}
        self.no_capacity: set[tuple[str, str, str]] = set()
        self.is_over_quota = False
        self.answers_with_the_dead = False
        """What EC2 does when the machine of a token is dead: both answers have been reported."""
        self.is_lagging = self.ignores_filters = False

    # -- launching ---------------------------------------------------------------------------

    def run_instances(self, **request):
        self._world.oracle.see_request(request)
        key = (request["ClientToken"], ZONES[request["NetworkInterfaces"][0]["SubnetId"]])
        digest = digest_request(request)
        bound, instance_id = self._tokens.get(key, (digest, ""))
        if bound != digest:
            raise ec2_error("IdempotentParameterMismatch")
        machine = self.machines.get(instance_id)
        if machine is None or self._is_forgotten(machine):
            self._tokens[key] = (digest, "")
            self._check_capacity(request)
            machine = self.launch(request)
            self._tokens[key] = (digest, machine.instance_id)
        elif machine.state == "terminated":
            self._world.reach("ec2: token of a dead machine")
            if not self.answers_with_the_dead:
                raise ec2_error("IdempotentInstanceTerminated")
        else:
            self._world.reach("ec2: token replayed")
        return {"OwnerId": ACCOUNT, "Instances": [self._describe(machine)]}

    def launch(self, request):
        """Launch, whatever the token says: also for a double launch."""
        machine = SimulatedMachine(self._world, f"i-{len(self.machines):017x}", request)
        if self.is_lagging:
            self._world.reach("ec2: machine not visible yet")
            machine.hidden_until = self._world.clock.now + 90
        self.machines[machine.instance_id] = machine
        return machine

    def _check_capacity(self, request):
        subnet = request["NetworkInterfaces"][0]["SubnetId"]
        market = "spot" if "InstanceMarketOptions" in request else "on-demand"
        if self.is_over_quota:
            self._world.reach("ec2: over quota")
            raise ec2_error("VcpuLimitExceeded")
        if (request["InstanceType"], subnet, market) in self.no_capacity:
            self._world.reach("ec2: no capacity")
            raise ec2_error("InsufficientInstanceCapacity", 500)

    def _is_forgotten(self, machine):
        if machine.state != "terminated":
            return False
        is_forgotten = self._world.clock.now - machine.ended_at > TOKEN_SECONDS
        if is_forgotten:
            self._world.reach("ec2: token forgotten")
        return is_forgotten

    # -- looking and ending ------------------------------------------------------------------

    def describe_instances(self, *, Filters, **_paging):  # noqa: N803 - boto3's name
        found = [m for m in self.machines.values() if m.is_shown]
        for one in () if self.ignores_filters else Filters:
            found = [m for m in found if self._matches(m, one["Name"], one["Values"])]
        groups = [{"OwnerId": ACCOUNT, "Instances": [self._describe(m)]} for m in found]
        return {"ResponseMetadata": self._world.clock.metadata, "Reservations": groups}

    def describe_instance_status(self, **_filters):
        found = [m for m in self.machines.values() if m.is_impaired and m.state == "running"]
        statuses = [{"InstanceId": m.instance_id} for m in found if m.is_shown]
        return {"ResponseMetadata": self._world.clock.metadata, "InstanceStatuses": statuses}

    def describe_volumes(self, **_filters):
        return {"ResponseMetadata": self._world.clock.metadata, "Volumes": []}

    def describe_network_interfaces(self, **_filters):
        return {"ResponseMetadata": self._world.clock.metadata, "NetworkInterfaces": []}

    def terminate_instances(self, *, InstanceIds, **how):  # noqa: N803
        if any(i not in self.machines or not self.machines[i].is_shown for i in InstanceIds):
            raise ec2_error("InvalidInstanceID.NotFound", operation="TerminateInstances")
        for instance_id in InstanceIds:
            machine = self.machines[instance_id]
            self._world.oracle.see_termination(machine)
            machine.end("Client.UserInitiatedShutdown")
            if how.get("Force") and machine.is_stuck:
                self._world.reach("ec2: forced")
                machine.is_stuck = False
        return {}

    def get_console_output(self, *, InstanceId, Latest=False):  # noqa: N803
        machine = self.machines.get(InstanceId)
        if machine is None or not machine.is_shown:
            raise ec2_error("InvalidInstanceID.NotFound", operation="GetConsoleOutput")
        if machine.posted_at is None:
            return {}
        return {"Output": machine.console, "Timestamp": _moment(machine.posted_at)}

    def _matches(self, machine, name, values):
        if name.startswith("tag:"):
            return machine.tags.get(name.removeprefix("tag:")) in values
        facts = {
            "instance-id": machine.instance_id,
            "instance-state-name": machine.state,
            "client-token": machine.request["ClientToken"],
        }
        return facts[name] in values

    def _describe(self, machine):
        found = {
            "InstanceId": machine.instance_id,
            "State": {"Name": machine.state},
            "StateReason": {"Code": machine.reason},
            "InstanceType": machine.request["InstanceType"],
            "Placement": {"AvailabilityZone": ZONES[machine.subnet]},
            "ClientToken": machine.request["ClientToken"],
            "LaunchTime": _moment(machine.launched_at),
            "Tags": [{"Key": k, "Value": v} for k, v in machine.tags.items()],
        }
        if machine.market == "spot":
            found["InstanceLifecycle"] = "spot"
        if machine.state == "terminated":
            return found  # a terminated instance has lost its network
        interface = {"Attachment": {"DeviceIndex": 0, "AttachTime": found["LaunchTime"]}}
        return found | {"SubnetId": machine.subnet, "NetworkInterfaces": [interface]}

    @property
    def own(self):
        """The machines that are not somebody else's."""
        return [m for m in self.machines.values() if m.tags[TAG_ENVIRONMENT] == "test"]


def _moment(seconds):
    return datetime.fromtimestamp(seconds, UTC)
