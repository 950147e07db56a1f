"""Runs inside Airflow: a process that makes a certain AWS call dies there, as by ``kill -9``.

``[aws] session_factory`` names this class: the amazon provider's own way to bring sessions. A
file in the folder ``CRASH_POINTS`` arms one crash: ``{"operation": "RunInstances", "when":
"before", "needles": ["claims"]}``. Whoever makes such a call next, with all needles in its words,
dies before the request is sent, or after the answer has come and before anybody has read it.
"""

import json
import os
import signal
from pathlib import Path

import botocore.loaders
from airflow.providers.amazon.aws.hooks.base_aws import BaseSessionFactory

from airflow_ephemeral_ec2.hooks import queue_ledger

FOLDER = Path(os.environ["CRASH_POINTS"])
if "CONTROLLER_LEASE_SECONDS" in os.environ:
    # A dead controller's lease is waited out; a test need not wait as long as a user.
    queue_ledger.LEASE_SECONDS = float(os.environ["CONTROLLER_LEASE_SECONDS"])


LOADER = botocore.loaders.Loader()
"""Of AWS's service descriptions; shared, so that forked processes need not read them again."""


def warm():
    """Read what every client needs."""
    for service in ("ec2", "s3"):
        LOADER.load_service_model(service, "service-2")
        LOADER.load_service_model(service, "endpoint-rule-set-1")


class CrashSessionFactory(BaseSessionFactory):
    """Sessions whose clients look at the armed crashes."""

    def create_session(self, *args, **kwargs):
        session = super().create_session(*args, **kwargs)
        if not hasattr(session, "_session"):  # aiobotocore's: of Airflow's own triggers
            return session
        session._session.register_component("data_loader", LOADER)
        session.events.register("before-call.*.*", _before)
        session.events.register("after-call.*.*", _after)
        return session


def _before(model, params, context, **_):
    words = f"{params['url_path']} {params['url']}".encode() + _bytes(params["body"])
    context["crash_words"] = words
    _crash(model.name, "before", words)


def _after(model, context, **_):
    _crash(model.name, "after", context.get("crash_words", b""))


def _bytes(body):
    if isinstance(body, dict):
        return json.dumps(body, default=str).encode()
    if hasattr(body, "read"):
        position = body.tell()
        text = body.read()
        body.seek(position)
        return text
    return body if isinstance(body, bytes) else str(body).encode()


def _crash(operation, when, words):
    for path in FOLDER.glob("*.json"):
        try:
            armed = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        if (armed["operation"], armed["when"]) != (operation, when):
            continue
        if all(needle.encode() in words for needle in armed["needles"]) and _is_first(path):
            os.kill(os.getpid(), signal.SIGKILL)


def _is_first(path):
    """Each armed crash happens once; who renames the file is the one."""
    try:
        path.rename(path.with_suffix(f".crashed-{os.getpid()}"))
    except FileNotFoundError:
        return False
    return True
