"""The gateway's locks, with a slow application in moto's place."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_ephemeral_ec2.local.account_limits import AccountLimits
from airflow_ephemeral_ec2.local.api_log import ApiLog
from airflow_ephemeral_ec2.local.authorization import Gatekeeper
from airflow_ephemeral_ec2.local.faults import FaultBook
from airflow_ephemeral_ec2.local.gateway import Gateway
from airflow_ephemeral_ec2.local.sessions import SessionBook

_SCOPE = "AWS4-HMAC-SHA256 Credential=local/20260301/us-east-1/s3/aws4_request, SignedHeaders=host"


class SlowStore:
    """Looks, waits, writes: whoever is not kept apart overwrites another."""

    def __init__(self):
        self.keys = {}
        self.inside = 0
        self.most_inside = 0
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        with self.lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        key = environ["PATH_INFO"]
        taken = key in self.keys
        time.sleep(0.02)
        self.keys[key] = True
        with self.lock:
            self.inside -= 1
        start_response("412 Precondition Failed" if taken else "200 OK", [])
        return [b""]


@pytest.fixture
def put(tmp_path):
    store = SlowStore()
    gateway = Gateway(
        moto=store,
        control=None,
        gatekeeper=Gatekeeper(SessionBook(), "123456789012"),
        faults=FaultBook(),
        ec2=None,
        log=ApiLog(tmp_path / "log"),
        limits=AccountLimits(),
    )

    def call(path):
        answers = []
        environ = {
            "REQUEST_METHOD": "PUT", "PATH_INFO": path, "RAW_URI": path,
            "HTTP_AUTHORIZATION": _SCOPE, "wsgi.input": io.BytesIO(b""), "CONTENT_LENGTH": "0",
        }  # fmt: skip
        list(gateway(environ, lambda status, _: answers.append(int(status.split()[0]))))
        return answers[0]

    call.store = store
    return call


def test_writers_of_one_key_are_kept_apart(put):
    with ThreadPoolExecutor(8) as pool:
        found = sorted(pool.map(put, ["/b/key"] * 8))

    assert found == [200] + [412] * 7


def test_writers_of_different_keys_do_not_wait_for_each_other(put):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(put, [f"/b/key-{number}" for number in range(8)]))

    assert found == [200] * 8
    assert put.store.most_inside > 1
