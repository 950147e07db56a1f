"""EC2's API where moto answers too simply: launching, ending, describing, the console."""

from base64 import b64encode
from contextlib import suppress
from typing import Any

import moto.ec2.models.instances as moto_instances
import moto.ec2.utils as moto_utils
from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.responses import EC2Response
from moto.ec2.responses.instances import InstanceResponse

from airflow_ephemeral_ec2.local.client_tokens import (
    Answer,
    TokenBook,
    TokenUse,
    judge_token,
    parameters_digest,
)
from airflow_ephemeral_ec2.local.fleet import Fleet, find_backend
from airflow_ephemeral_ec2.local.image_devices import complete_devices
from airflow_ephemeral_ec2.local.instance_filters import (
    check_filters,
    passes_filters,
    passes_status_filters,
)
from airflow_ephemeral_ec2.local.instance_states import Event, State
from airflow_ephemeral_ec2.local.launch_checks import check_launch, is_nitro
from airflow_ephemeral_ec2.local.local_instance import LocalInstance

_NOT_IMITATED = (
    "create_fleet",
    "request_spot_fleet",
    "request_spot_instances",
)
_MOTO_RUN_INSTANCES = InstanceResponse.run_instances
_ALWAYS_PENDING = "RunInstances.Reservation.Instances.Instance.State"
_TOKEN_MESSAGES = {
    Answer.MISMATCH: "Arguments on this idempotent request are inconsistent with arguments used in"
    " previous request(s).",
    Answer.TERMINATED: "The instance that was launched with this client token has been terminated.",
}


class LocalEc2Api:
    """
    The patched actions. ``self.fleet`` has the machines, ``self.tokens`` the client tokens.

    Each method gets moto's response object, which knows the request.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.tokens = TokenBook()

    def install(self) -> None:
        """Patch moto in this process."""
        setattr(moto_instances, "Instance", LocalInstance)  # noqa: B010 - mypy accepts no patching
        setattr(moto_utils, "passes_filter_dict", passes_filters)  # noqa: B010 - as above
        for name in (
            "run_instances", "terminate_instances", "stop_instances", "start_instances",
            "reboot_instances", "describe_instances", "get_console_output",
            "describe_instance_status", "modify_instance_attribute",
        ):  # fmt: skip
            setattr(EC2Response, name, _bound(getattr(self, name)))
        # Without it an answer shows the instance's own state, also when a launch is replayed.
        EC2Response.RESPONSE_KEY_PATH_TO_TRANSFORMER.pop(_ALWAYS_PENDING, None)
        for name in _NOT_IMITATED:
            setattr(EC2Response, name, _bound(_refuse))

    # -- launching ----------------------------------------------------------------------------

    def run_instances(self, call: Any) -> ActionResult:  # noqa: ANN401 - moto is not typed
        check_launch(call)
        call.error_on_dryrun()
        token = call._get_param("ClientToken", "")  # noqa: SLF001 - moto's way to read parameters
        use = self._replay(call, token)
        if isinstance(use, ActionResult):
            return use
        with suppress(KeyError):
            call.params["MinCount"] = call.params["MaxCount"]
        complete_devices(call)
        result = self._launch(call)
        reservation: Any = result.result
        if use is not None:
            use.reservation_id = reservation.id
            use.instance_ids = tuple(one.id for one in reservation.instances)
        for instance in reservation.instances:
            instance.client_token = token or None
            self.fleet.launch(instance)
        return result

    def bind(self, call_parameters: dict[str, str], account: str, region: str) -> Answer:
        """Judge and bind a token whose launch is about to be refused for capacity."""
        token = call_parameters.get("ClientToken", "")
        scope = self._scope(call_parameters, account, region)
        digest = parameters_digest(call_parameters)
        answer = judge_token(self.tokens.find(token, scope), digest, self._is_live)
        if token and answer is Answer.LAUNCH:
            self.tokens.bind(token, scope, digest)
        return answer

    def is_new(self, parameters: dict[str, str], account: str, region: str) -> bool:
        """Say whether a request would launch, and not find its instance again."""
        token = parameters.get("ClientToken", "")
        use = self.tokens.find(token, self._scope(parameters, account, region)) if token else None
        return use is None or not use.instance_ids

    def vcpus(self, parameters: dict[str, str]) -> tuple[int, int, bool]:
        """Return (vCPUs of a request, vCPUs of its market in use, whether it is spot)."""
        is_spot = market_of(parameters) == "spot"
        used = sum(
            _vcpus_of(member.instance.instance_type)
            for member in self.fleet.members.values()
            if member.machine.state is not State.TERMINATED
            and (member.instance.lifecycle == "spot") == is_spot
        )
        return _vcpus_of(parameters.get("InstanceType", "")), used, is_spot

    def place_of(self, parameters: dict[str, str], account: str, region: str) -> dict[str, str]:
        """Name what a launch asks for, in the words of the fault kinds."""
        subnet = parameters.get("SubnetId") or parameters.get("NetworkInterface.1.SubnetId", "")
        return {
            "instance_type": parameters.get("InstanceType", ""),
            "subnet": subnet,
            "zone": self._scope(parameters, account, region),
            "market": market_of(parameters),
        }

    def _replay(self, call: Any, token: str) -> TokenUse | ActionResult | None:  # noqa: ANN401
        if not token:
            return None
        parameters = {name: values[0] for name, values in call.data.items()}
        scope = self._scope(parameters, call.current_account, call.region)
        digest = parameters_digest(parameters)
        use = self.tokens.find(token, scope)
        answer = judge_token(use, digest, self._is_live)
        if answer is Answer.LAUNCH:
            return self.tokens.bind(token, scope, digest)
        if answer is Answer.REPLAY and use is not None:
            return ActionResult(call.ec2_backend.reservations[use.reservation_id])
        raise EC2ClientError(str(answer), _TOKEN_MESSAGES[answer])

    def _scope(self, parameters: dict[str, str], account: str, region: str) -> str:
        subnet_id = parameters.get("SubnetId") or parameters.get("NetworkInterface.1.SubnetId")
        if subnet_id:
            for subnet in find_backend(account, region).describe_subnets():
                if subnet.id == subnet_id:
                    return str(subnet.availability_zone)
        return parameters.get("Placement.AvailabilityZone", region)

    def _is_live(self, instance_id: str) -> bool:
        member = self.fleet.members.get(instance_id)
        return member is not None and member.machine.state is not State.TERMINATED

    @staticmethod
    def _launch(call: Any) -> ActionResult:  # noqa: ANN401
        before = set(call.ec2_backend.reservations)
        try:
            return _MOTO_RUN_INSTANCES(call)
        except Exception:
            for key in set(call.ec2_backend.reservations) - before:
                del call.ec2_backend.reservations[key]
            raise

    # -- ending -------------------------------------------------------------------------------

    def terminate_instances(self, call: Any) -> ActionResult:  # noqa: ANN401
        instances = self._chosen(call)
        for instance in instances:
            if instance.disable_api_termination is True:
                code = "OperationNotPermitted"
                raise EC2ClientError(code, f"{instance.id} may not be terminated (protected).")
        answer = self._change(instances, Event.TERMINATE, "TerminatingInstances")
        if str(call._get_param("Force", "")).lower() == "true":  # noqa: SLF001
            for instance in instances:
                self.fleet.members[instance.id].machine.end_by_force()
        return answer

    def modify_instance_attribute(self, call: Any) -> ActionResult:  # noqa: ANN401
        """Only termination protection may be changed here."""
        wanted = call._get_param("DisableApiTermination")  # noqa: SLF001
        value = wanted.get("Value") if isinstance(wanted, dict) else None
        if value is None:
            return _refuse(call)
        (instance,) = self._found(call, [call._get_param("InstanceId")])  # noqa: SLF001
        instance.disable_api_termination = str(value).lower() == "true"
        return EmptyResult()

    def stop_instances(self, call: Any) -> ActionResult:  # noqa: ANN401
        instances = self._chosen(call, State.PENDING, State.RUNNING, State.STOPPING, State.STOPPED)
        return self._change(instances, Event.STOP, "StoppingInstances")

    def start_instances(self, call: Any) -> ActionResult:  # noqa: ANN401
        instances = self._chosen(call, State.STOPPED, State.PENDING, State.RUNNING)
        return self._change(instances, Event.START, "StartingInstances")

    def reboot_instances(self, call: Any) -> ActionResult:  # noqa: ANN401
        for instance in self._chosen(call, State.RUNNING):
            self.fleet.members[instance.id].machine.happen(Event.REBOOT)
        return EmptyResult()

    def _chosen(self, call: Any, *allowed: State) -> list[LocalInstance]:  # noqa: ANN401
        ids = call._get_param("InstanceIds", [])  # noqa: SLF001
        if not ids:
            code = "MissingParameter"
            raise EC2ClientError(code, "The request must contain the parameter InstanceId")
        self.fleet.evict()
        instances = self._found(call, ids)
        call.error_on_dryrun()
        for instance in instances:
            if allowed and instance.state not in allowed:
                text = f"The instance '{instance.id}' is not in a state from which it can do that."
                code = "IncorrectInstanceState"
                raise EC2ClientError(code, text)
        return list(instances)

    def _found(self, call: Any, ids: list[str]) -> list[LocalInstance]:  # noqa: ANN401
        wanted = list(dict.fromkeys(ids))
        for instance_id in wanted:
            if not self.fleet.is_shown(instance_id):
                code = "InvalidInstanceID.NotFound"
                raise EC2ClientError(code, f"The instance ID '{instance_id}' does not exist")
        return list(call.ec2_backend.get_multi_instances_by_id(wanted))

    def _change(self, instances: list[LocalInstance], event: Event, name: str) -> ActionResult:
        changes = []
        for one in instances:
            before = {"Code": one.state_code, "Name": one.state}
            self.fleet.members[one.id].machine.happen(event)
            now = {"Code": one.state_code, "Name": one.state}
            changes.append({"InstanceId": one.id, "CurrentState": now, "PreviousState": before})
        return ActionResult({name: changes})

    # -- looking ------------------------------------------------------------------------------

    def describe_instances(self, call: Any) -> ActionResult:  # noqa: ANN401
        self.fleet.evict()
        call.error_on_dryrun()
        filters = call._filters_from_querystring()  # noqa: SLF001
        check_filters(filters)
        ids = call._get_param("InstanceIds", [])  # noqa: SLF001
        size = call._get_param("MaxResults")  # noqa: SLF001
        page = page_of(ids, size, call._get_param("NextToken"))  # noqa: SLF001
        backend = call.ec2_backend
        if ids:
            self._found(call, ids)
            found = backend.get_reservations_by_instance_ids(list(dict.fromkeys(ids)), filters)
        else:
            found = backend.describe_instances(filters=filters)
            found = [group for group in found if self._shown_of(group)]
        start = page.start or 0
        chosen = found[page]
        more = page.stop is not None and len(found) > page.stop
        token = f"page-{start + len(chosen)}" if more else None
        return ActionResult({"Reservations": chosen, "NextToken": token})

    def _shown_of(self, reservation: Any) -> bool:  # noqa: ANN401
        return all(self.fleet.is_shown(instance.id) for instance in reservation.instances)

    def describe_instance_status(self, call: Any) -> ActionResult:  # noqa: ANN401
        call.error_on_dryrun()
        filters = call._filters_from_querystring()  # noqa: SLF001
        found = [self._status(one.instance) for one in self.fleet.members.values()]
        shown = [one for one in found if one and passes_status_filters(one, filters)]
        return ActionResult({"InstanceStatuses": shown})

    def _status(self, instance: LocalInstance) -> dict[str, Any] | None:
        if instance.state != State.RUNNING or not self.fleet.is_shown(instance.id):
            return None
        system = "impaired" if self.fleet.is_impaired(instance.id) else "ok"
        return {
            "InstanceId": instance.id,
            "AvailabilityZone": str(instance.placement.zone),
            "InstanceState": {"Code": instance.state_code, "Name": instance.state},
            "InstanceStatus": {"Status": "ok"},
            "SystemStatus": {"Status": system},
        }

    def get_console_output(self, call: Any) -> ActionResult:  # noqa: ANN401
        instance_id = call._get_param("InstanceId")  # noqa: SLF001
        (instance,) = self._found(call, [instance_id])
        call.error_on_dryrun()
        is_latest = str(call._get_param("Latest", "")).lower() == "true"  # noqa: SLF001
        if is_latest and not is_nitro(instance.instance_type):
            code = "UnsupportedOperation"
            raise EC2ClientError(code, "This instance type does not support retrieving the latest.")
        text, posted_at = self.fleet.console(instance.id, is_latest=is_latest)
        if posted_at is None:
            return ActionResult({"InstanceId": instance.id})
        crlf = text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")[-65_536:]
        output = Base64EncodedString(b64encode(crlf).decode())
        return ActionResult({"InstanceId": instance.id, "Timestamp": posted_at, "Output": output})


def market_of(parameters: dict[str, str]) -> str:
    """Return ``spot`` or ``on-demand``, as a launch asks for it."""
    found = parameters.get("InstanceMarketOptions.MarketType", "")
    return "spot" if found == "spot" else "on-demand"


def _vcpus_of(instance_type: str) -> int:
    facts = INSTANCE_TYPES.get(instance_type, {})
    return int(facts.get("VCpuInfo", {}).get("DefaultVCpus", 2))


def page_of(ids: list[str], size: object, token: str | None) -> slice:
    """
    Which reservations to return.

    :raises EC2ClientError: sizes outside 5..1000, a token that was never given out.
    """
    if size is None and not token:
        return slice(0, None)
    if ids:
        code = "InvalidParameterCombination"
        text = "The parameter instancesSet cannot be used with the parameter maxResults"
        raise EC2ClientError(code, text)
    count = int(str(size)) if size is not None else 1_000
    if not 5 <= count <= 1_000:
        code = "InvalidParameterValue"
        raise EC2ClientError(code, f"Value ( {count} ) for parameter maxResults is invalid.")
    start = (token or "page-0").removeprefix("page-")
    if not start.isdigit():
        code = "InvalidNextToken"
        raise EC2ClientError(code, f"The token '{token}' is invalid.")
    return slice(int(start), int(start) + count)


def _bound(function: Any) -> Any:  # noqa: ANN401
    """Make a method of moto's response class out of a function that takes the response."""

    def action(self: Any) -> Any:  # noqa: ANN401
        return function(self)

    return action


def _refuse(call: Any) -> ActionResult:  # noqa: ANN401
    code = "UnsupportedOperation"
    action = call._get_action()  # noqa: SLF001
    raise EC2ClientError(code, f"The local EC2 does not imitate {action}.")
