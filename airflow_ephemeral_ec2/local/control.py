"""The local EC2's own API below ``/local-ec2/``: health, seed, faults, killing machines."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass

from airflow_ephemeral_ec2.local.account_limits import AccountLimits
from airflow_ephemeral_ec2.local.error_answers import Reply
from airflow_ephemeral_ec2.local.fault_kinds import Limits, Plan, parse_rules
from airflow_ephemeral_ec2.local.faults import FaultBook
from airflow_ephemeral_ec2.local.fleet import Fleet
from airflow_ephemeral_ec2.local.harms import parse_harm
from airflow_ephemeral_ec2.local.seeding import parse_seed, seed

_KILL = re.compile(r"/local-ec2/instances/(i-[0-9a-f]+)/kill")


@dataclass(frozen=True)
class Control:
    """Answers are JSON; a mistake is a 400 with ``{"error": ...}``."""

    fleet: Fleet
    faults: FaultBook
    account: str
    facts: Callable[[], dict[str, object]]
    limits: AccountLimits

    def answer(self, method: str, path: str, raw: bytes) -> Reply:
        try:
            body = json.loads(raw or b"{}")
            found = self._route(method, path.rstrip("/"), body)
        except ValueError as error:
            return _json(400, {"error": str(error)})
        except KeyError as error:
            return _json(404, {"error": f"no such instance: {error.args[0]}"})
        return _json(404, {"error": _HELP}) if found is None else _json(200, found)

    def _route(self, method: str, path: str, body: object) -> dict[str, object] | None:
        if (method, path) == ("GET", "/local-ec2/health"):
            return self.facts()
        if (method, path) == ("GET", "/local-ec2/instances"):
            return self._instances()
        if path == "/local-ec2/faults":
            return self._fault(method, body)
        if path == "/local-ec2/harms":
            return self._harms(method, body)
        if (method, path) == ("POST", "/local-ec2/seed"):
            with self.fleet.lock:
                seed(parse_seed(body), self.account)
            return {"seeded": True}
        kill = _KILL.fullmatch(path)
        if method == "POST" and kill:
            return self._kill(kill.group(1), body)
        return None

    def _fault(self, method: str, body: object) -> dict[str, object] | None:
        if method == "POST":
            self.apply(parse_rules(body if isinstance(body, list) else [body], "faults"))
        elif method == "DELETE":
            self.faults.clear()
            self.limits.limits = Limits()
        elif method != "GET":
            return None
        return {"faults": self.faults.listed()}

    def apply(self, plan: Plan) -> None:
        """Put rules in force, beside those that are."""
        for fault in plan.faults:
            self.faults.add(fault)
        for harm in plan.harms:
            self.fleet.harms.add(harm)
        if plan.limits != Limits():
            self.limits.limits = plan.limits

    def _kill(self, instance_id: str, body: object) -> dict[str, object]:
        wanted = dict(body) if isinstance(body, dict) else {}
        wanted.setdefault("how", "host")
        harm = parse_harm(wanted)
        with self.fleet.lock:
            self.fleet.harm(instance_id, harm)
        return {"instance_id": instance_id, "how": harm.how}

    def _harms(self, method: str, body: object) -> dict[str, object] | None:
        if method == "POST":
            if not isinstance(body, dict):
                msg = 'a harm is a JSON object with at least "how", like {"how": "slow-boot"}'
                raise ValueError(msg)
            self.fleet.harms.add(parse_harm(body))
        elif method == "DELETE":
            self.fleet.harms.clear()
        elif method != "GET":
            return None
        return {"harms": [asdict(harm) for harm in self.fleet.harms.listed()]}

    def _instances(self) -> dict[str, object]:
        with self.fleet.lock:
            members = list(self.fleet.members.items())
        states = {i: str(m.machine.state) for i, m in members}
        urls = {i: m.machine.plan.guest.imds_url for i, m in members}
        return {"instances": states, "metadata": urls}


_HELP = (
    "GET /local-ec2/health, GET /local-ec2/instances, POST /local-ec2/seed, "
    "GET|POST|DELETE /local-ec2/faults, GET|POST|DELETE /local-ec2/harms, POST /local-ec2/instances/{id}/kill"
)


def _json(status: int, document: object) -> Reply:
    body = json.dumps(document, default=str).encode() + b"\n"
    return Reply(status, [("Content-Type", "application/json")], body)
