"""docker-compose.yaml, as far as it can be checked without a Docker engine."""

import json
import re
from pathlib import Path

import pytest
import yaml

from airflow_ephemeral_ec2.get_provider_info import get_provider_info
from airflow_ephemeral_ec2.local.options import read_options
from airflow_ephemeral_ec2.local.seeding import parse_seed
from tests.system.airflow_settings import COMMANDS, MIGRATE, SHARED, EngineSettings
from tests.system.demo_stage import seed

CHECKOUT = Path(__file__).parents[2]
PINS = dict(line.split("==") for line in (CHECKOUT / ".ci" / "constraints.txt").read_text().split())
SERVICE_KEYS = {
    "build", "command", "configs", "depends_on", "environment", "healthcheck", "image", "init",
    "ports", "pull_policy", "restart", "user", "volumes",
}  # fmt: skip
ONE_SHOT = {"migrate", "stage"}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((CHECKOUT / "docker-compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


def _environments(services):
    return {name: service.get("environment", {}) for name, service in services.items()}


def test_it_has_airflows_parts_postgres_and_the_local_ec2(services):
    assert set(services) == {*COMMANDS, *ONE_SHOT, "postgres", "ec2"}


def test_every_key_is_one_that_compose_knows(compose, services):
    top = {key for key in compose if not key.startswith("x-")}

    assert top == {"name", "services", "configs", "volumes"}
    assert {key for service in services.values() for key in service} <= SERVICE_KEYS


def test_services_run_the_same_commands_as_the_demo(services):
    wanted = {name: list(command) for name, command in COMMANDS.items()}

    assert {name: services[name]["command"] for name in COMMANDS} == wanted
    assert services["migrate"]["command"] == list(MIGRATE)


def test_services_have_the_settings_of_the_demo(services):
    wanted = SHARED | EngineSettings().environ()

    for name in (*COMMANDS, "migrate", "stage"):
        found = services[name]["environment"]
        assert {key: found.get(key) for key in wanted} == wanted, name


def test_the_local_ec2_understands_its_command_and_its_seed(compose, services):
    command = services["ec2"]["command"]
    wanted = parse_seed(json.loads(compose["configs"]["seed"]["content"]))

    options = read_options([str(word) for word in command[3:]])

    assert command[:3] == ["python", "-m", "airflow_ephemeral_ec2.local"]
    assert (
        f"http://ec2:{options.port}"
        in services["scheduler"]["environment"]["AIRFLOW_CONN_AWS_DEFAULT"]
    )
    assert str(options.seed) == services["ec2"]["configs"][0]["target"]
    assert wanted == parse_seed(seed(EngineSettings()))


def test_the_connection_is_json_that_airflow_reads(services):
    connection = json.loads(services["triggerer"]["environment"]["AIRFLOW_CONN_AWS_DEFAULT"])

    assert connection["conn_type"] == "aws"
    assert connection["extra"]["config_kwargs"] == {"s3": {"addressing_style": "path"}}


def test_versions_are_those_of_the_constraints(services):
    airflow = PINS["apache-airflow"]
    for name in ("ec2", *COMMANDS):
        assert services[name]["image"].endswith(f":{airflow}")
        dockerfile = services[name]["build"]["dockerfile_inline"]
        assert re.match(rf"FROM apache/airflow:{airflow}-python3\.1[1-3]\n", dockerfile)
        assert "-c constraints.txt" in dockerfile


def test_everything_that_the_image_copies_exists(services):
    dockerfile = services["scheduler"]["build"]["dockerfile_inline"]

    sources = [
        word
        for line in dockerfile.splitlines()
        if line.startswith("COPY")
        for word in line.split()[2:-1]
    ]

    assert sources
    assert [source for source in sources if not (CHECKOUT / source).exists()] == []


def test_our_settings_are_ones_that_the_provider_declares(services):
    known = {
        f"AIRFLOW__EPHEMERAL_EC2__{option.upper()}"
        for option in get_provider_info()["config"]["ephemeral_ec2"]["options"]
    }

    for name, environment in _environments(services).items():
        ours = {key for key in environment if key.startswith("AIRFLOW__EPHEMERAL_EC2__")}
        assert ours <= known, name


@pytest.mark.parametrize(
    ("service", "variable"),
    [
        ("postgres", "POSTGRES_PASSWORD"),
        ("scheduler", "AIRFLOW__API__SECRET_KEY"),
        ("scheduler", "AIRFLOW__API_AUTH__JWT_SECRET"),
        ("scheduler", "AIRFLOW__CORE__FERNET_KEY"),
        ("scheduler", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"),
    ],
)
def test_secrets_have_no_default_and_say_what_to_set(services, service, variable):
    assert re.search(r"\$\{[A-Z_]+:\?[^}]+\}", services[service]["environment"][variable])


def test_everything_that_stays_up_has_a_health_check(services):
    staying = {name for name in services if name not in ONE_SHOT}

    for name in staying:
        check = services[name]["healthcheck"]
        assert check["test"][0] in {"CMD", "CMD-SHELL"}, name
        assert {"interval", "timeout", "retries"} <= set(check), name


def test_nothing_waits_for_a_service_or_a_state_that_does_not_come(services):
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            if condition == "service_healthy":
                assert "healthcheck" in services[other], name
            else:
                assert condition == "service_completed_successfully", name
                assert other in ONE_SHOT, name


def test_ports_are_open_to_this_machine_only(services):
    ports = [port for service in services.values() for port in service.get("ports", ())]

    assert ports == ["127.0.0.1:8080:8080"]


def test_volumes_and_configs_that_are_used_are_declared(compose, services):
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (CHECKOUT / source).is_dir()
        for config in service.get("configs", ()):
            assert config["source"] in compose["configs"]
