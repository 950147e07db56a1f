"""What must be so before anything is imported, and the fixtures that many tests share."""

import atexit
import gc
import os
import tempfile

# Airflow and moto make millions of objects that live as long as the tests; to look through all of
# them again and again is a fifth of the time. Pytest itself collects at the end.
gc.disable()
gc.set_threshold(100_000, 50, 100)

# Before Airflow is imported for the first time: it must not touch the user's own home.
_HOME = tempfile.TemporaryDirectory(prefix="airflow-home-", ignore_cleanup_errors=True)
atexit.register(_HOME.cleanup)
os.environ["AIRFLOW_HOME"] = _HOME.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"


def pytest_configure(config):
    """Load the fixtures, and Airflow with them, but not where tests are only handed out: 2 s."""
    is_worker = hasattr(config, "workerinput")
    if is_worker or not config.getoption("numprocesses", default=None):
        config.pluginmanager.import_plugin("tests.fixtures")


def pytest_collection_finish(session):
    """What is there now stays to the end: no collection looks at it again."""
    gc.freeze()
    gc.enable()
