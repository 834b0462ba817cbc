"""The reference pages say what the code does: routes, fields, limits and errors."""

import re
from pathlib import Path

import attrs
import pytest

from node.errors import STATUS
from node.http import page, schema
from node.http.api import Api
from node.http.counters import Counters
from node.http.limits import SETTING, Limits
from node.ops.app import Operations
from node.settings import BY_NAME
from tests.node.http.fake import FakeGateway

DOCS = Path(__file__).parents[3] / "docs" / "reference"
API = (DOCS / "http-api.md").read_text()
ERRORS = (DOCS / "errors.md").read_text()


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """Return the cells of the first table below a heading, by what stands in backticks in the first."""
    part = text.split(heading, 1)[1].split("\n## ", 1)[0]
    lines = [line.strip().strip("|").split("|") for line in part.splitlines() if line.startswith("| `")]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in lines}


def routes(text: str, heading: str) -> set[str]:
    part = text.split(heading, 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"`((?:GET|POST) /[^`?]*)[^`]*`", part)) - {"GET /members"} | (
        {"GET /members"} if "| `GET /members`" in part else set()
    )


def test_the_routes_of_the_http_port():
    table = {f"{route.method} {route.path}" for route in (*Api(FakeGateway()).routes(), *page.routes())}
    assert routes(API, "## Routes of the HTTP port") == table


def test_the_routes_of_the_operations_port():
    table = Operations(FakeGateway(), Counters(), Counters()).routes()
    assert routes(API, "## Routes of the operations port") == {
        f"{route.method} {route.path}" for route in table
    }


def test_the_fields_of_a_request():
    told = {name: (cells[0] == "yes", cells[1] == "yes") for name, cells in rows(API, "## Fields").items()}
    assert told == {name: (row.chat, row.completions) for name, row in schema.FIELDS.items()}


def test_what_is_not_built_yet():
    text = API.split("Not built yet", 1)[1].split("\n\n", 1)[0]
    assert re.findall(r"`([^`]*)`", text)[1:] == list(schema.UNBUILT)


def test_the_limits():
    told = {name: (cells[0], cells[1].strip("`")) for name, cells in rows(API, "## Limits").items()}
    assert told == {
        field.name: (
            f"{field.default:g}" if isinstance(field.default, float) else str(field.default),
            SETTING[field.name],
        )
        for field in attrs.fields(Limits)
    }


def test_the_errors():
    told = {code: int(cells[0]) for code, cells in rows(ERRORS, "# Errors").items()}
    assert told == STATUS


@pytest.mark.parametrize("name", [setting for setting in SETTING.values() if setting])
def test_a_limits_setting_exists(name: str):
    assert name in BY_NAME


def test_settings_without_a_change_give_the_default_limits():
    class Config:
        pass

    for name in filter(None, SETTING.values()):
        setattr(Config, name, BY_NAME[name].value(BY_NAME[name].default))
    assert Limits.of(Config) == Limits()
