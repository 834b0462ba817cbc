"""What a wheel of the distribution holds: four packages, the embedded model, the page, one command."""

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.tidy.tree import PACKAGES, ROOT, files

BESIDE = ("pyproject.toml", "README.md", "LICENSE")
DATA = ("kernels/cpu", "node/models", "node/web")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build a wheel from a copy of the tree, with the setuptools of this environment."""
    work = tmp_path_factory.mktemp("wheel")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        shutil.copy(ROOT / name, work / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        "out",
        ".",
    ]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next((work / "out").glob("*.whl")))


@pytest.mark.slow
def test_a_wheel_holds_the_four_packages_and_nothing_else(wheel: zipfile.ZipFile):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        package for package in PACKAGES if any(files(package))
    }


@pytest.mark.slow
def test_a_wheel_holds_every_module_and_all_data(wheel: zipfile.ZipFile):
    data = [path.relative_to(ROOT) for room in DATA for path in (ROOT / room).rglob("*") if path.is_file()]
    wanted = {path.as_posix() for path in [*files(*PACKAGES), *data] if "__pycache__" not in path.parts}
    assert wanted - set(wheel.namelist()) == set()


@pytest.mark.slow
def test_a_wheel_installs_the_command(wheel: zipfile.ZipFile):
    entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    parser = configparser.ConfigParser()
    parser.read_string(wheel.read(entry).decode())
    assert dict(parser["console_scripts"]) == {"inferno": "node.cli.main:main"}


@pytest.mark.slow
def test_a_wheel_carries_its_licence(wheel: zipfile.ZipFile):
    licence = next(name for name in wheel.namelist() if name.endswith("LICENSE"))
    assert wheel.read(licence) == Path(ROOT / "LICENSE").read_bytes()
