"""What all tests share: how hard Hypothesis tries, and which tests this machine cannot run."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads slow each other fourfold

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile(
    "ci", max_examples=500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

NEEDS = {
    "gpu": (lambda: Path("/dev/nvidiactl").exists(), "no NVIDIA GPU here"),
    "browser": (
        lambda: bool(shutil.which("chromium") and shutil.which("chromedriver")),
        "no chromium and chromedriver here",
    ),
}
"""For a marker: whether this machine has what it needs, and what to say if not."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run."""
    missing = {marker: reason for marker, (has, reason) in NEEDS.items() if not has()}
    for item in items:
        for marker in missing.keys() & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.skip(reason=missing[marker]))
