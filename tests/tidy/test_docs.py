"""What the pages say is what the code does."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.cli import reference
from node.cli.arguments import COMMANDS
from node.settings import SETTINGS
from tests.tidy.tree import ROOT

PAGES = sorted(
    path.relative_to(ROOT)
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if path.name != "CHANGELOG.md"
)

VARIABLES = {variable for setting in SETTINGS for variable in setting.variables}
FLAGS = {
    "--help",
    "--version",
    *(setting.flag for setting in SETTINGS),
    *(f"--{option.name}" for command in COMMANDS.values() for option in command.options),
}
OURS = re.compile(r"(?:-m node|\binferno)\b(?! *=)([^`|;&]*)")
"""A mention of our command, with the rest of its line up to where another command may begin."""

TARGET = re.compile(r"(?:^\$? *|`)make ([a-z]+)", re.MULTILINE)
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def unknown_words(text: str) -> Iterator[str]:
    """Yield the make targets, the flags after our command and the INFERNO_ variables that do not exist."""
    yield from (f"make {target}" for target in TARGET.findall(text) if target not in TARGETS)
    for line in text.replace("\\\n", " ").splitlines():
        for rest in OURS.findall(line):
            yield from (flag for flag in re.findall(r"(?<!\S)\[?(--[a-z][a-z-]*)", rest) if flag not in FLAGS)
    yield from (name for name in re.findall(r"\bINFERNO_[A-Z_]*[A-Z]\b", text) if name not in VARIABLES)


def broken_links(page: Path, text: str) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    targets = [link for link in LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]
    return [link for link in targets if not (ROOT / page.parent / link).exists()]


def test_the_settings_page_is_what_the_table_says():
    assert (ROOT / "docs/reference/settings.md").read_text() == reference.page(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_names_only_what_exists(page: Path):
    text = (ROOT / page).read_text()
    assert [*unknown_words(text)] == []
    assert broken_links(page, text) == []


def test_the_check_objects_to_what_does_not_exist():
    text = (
        "python -m node --htpp 127.0.0.1:1\ninferno mesh --nodes 3 --name a\npytest --quick\nINFERNO_HTPP=1"
    )
    assert [*unknown_words(text)] == ["--htpp", "INFERNO_HTPP"]
    assert [*unknown_words("`make haste`\nmake test\n")] == ["make haste"]
    assert broken_links(Path("docs/a.md"), "[here](no/such.md) [there](https://a.b/c.md)") == ["no/such.md"]


def test_every_row_says_one_sentence():
    for setting in SETTINGS:
        assert setting.help.endswith("."), setting.name
        assert "\n" not in setting.help, setting.name


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bare(requirement: str) -> str:
    """Return the name of a distribution in a requirement."""
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower()


def declared() -> set[str]:
    extras = [name for names in project()["optional-dependencies"].values() for name in names]
    return {bare(requirement) for requirement in [*project()["dependencies"], *extras]}


def test_every_dependency_has_its_reason_on_the_page():
    page = (ROOT / "docs/dependencies.md").read_text()
    assert set(re.findall(r"^\| `([a-z0-9-]+)`", page, re.MULTILINE)) == declared()


@pytest.mark.parametrize(("lock", "extras"), [("runtime", ()), ("test", ("test", "bench"))])
def test_the_lock_pins_every_dependency(lock: str, extras: tuple[str, ...]):
    lines = (ROOT / f"requirements/{lock}.lock").read_text().splitlines()
    pins = {line.split("==")[0] for line in lines if "==" in line}
    wanted = [
        *project()["dependencies"],
        *(r for extra in extras for r in project()["optional-dependencies"][extra]),
    ]
    assert {bare(requirement) for requirement in wanted} - pins == set()
    assert all("==" in line for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("lock", ["runtime", "test"])
def test_the_lock_names_no_place_and_no_rival_of_our_packages(lock: str):
    text = (ROOT / f"requirements/{lock}.lock").read_text()
    assert not re.search(r"file:|https?:|^kernels==|^nvidia-", text, re.MULTILINE)
