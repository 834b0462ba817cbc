"""One seed is one history under every Python that runs us, whatever the hash seed."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sim.rule import Rule, condition
from tests.tidy.tree import ROOT

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
PACKAGES = ("attr", "attrs", "msgpack")
"""What the simulator imports beside the standard library; in pure Python where that is all that fits."""

DIGESTS = """
from mesh.swim_options import SwimOptions
from sim.members import draw as members, run as run_members
from sim.scenario import run
from sim.scenarios import kill
from sim.swarm import draw
clear = [seed for seed in range(30) if not draw(seed).sealed]  # sealing needs a compiled library
for seed in clear[:3]:
    print(run(draw(seed, seconds=3.0)).world.trace.digest())
print(run(kill(3, seconds=4.0)).world.trace.digest())
print(run_members(members("kill", 3, 12, 4.0, SwimOptions.local()))["trace_digest"])
"""


def interpreters() -> dict[str, str]:
    """Return version -> path of the Pythons on this machine, on the path or kept by pyenv."""
    found = {}
    for version in VERSIONS:
        places = [
            shutil.which(f"python{version}"),
            *Path.home().glob(f".pyenv/versions/{version}.*/bin/python"),
        ]
        works = [str(place) for place in places if place and runs(str(place), version)]
        if works:
            found[version] = works[0]
    return found


def runs(python: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == version


def digests(python: str, hash_seed: str, packages: Path) -> list[str]:
    done = subprocess.run(
        [python, "-c", DIGESTS],
        cwd=ROOT,
        env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}:{packages}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lend this environment's packages to other Pythons, which take their pure parts."""
    folder = tmp_path_factory.mktemp("packages")
    for name in PACKAGES:
        origin = importlib.util.find_spec(name).submodule_search_locations[0]
        (folder / name).symlink_to(origin)
    return folder


@pytest.fixture(scope="module")
def here(packages: Path) -> list[str]:
    return digests(sys.executable, "0", packages)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_another_python_has_the_same_histories(version: str, here: list[str], packages: Path):
    python = interpreters().get(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    assert digests(python, version.replace(".", ""), packages) == here
    assert len(set(here)) == 5


def test_delays_add_up_alike_in_every_python():
    """`sum` of floats rounds otherwise since Python 3.12."""
    assert condition((Rule(delay_s=0.1),) * 10).delay_s == 1.0
