"""A failing scenario as a test that a person can paste: only what differs from the defaults, with its imports."""

from typing import Any

import attrs

from sim.scenario import Scenario
from sim.shrink import Failure

INDENT = "    "
WIDTH_MAX = 100


@attrs.define
class Source:
    """Python code of values, and the imports that it needs."""

    imports: dict[str, set[str]] = attrs.Factory(dict)
    """Module -> names."""

    def code(self, value: Any, depth: int = 0) -> str:
        """Return an expression for a value. Values of attrs classes are written without their defaults."""
        if attrs.has(type(value)):
            return self._call(value, depth)
        if isinstance(value, tuple):
            items = [self.code(item, depth + 1) for item in value]
            return self._spread("(", items, ",)" if len(items) == 1 else ")", depth)
        if isinstance(value, frozenset):
            return f"frozenset({self.code(tuple(sorted(value)), depth)})"
        if isinstance(value, type) or callable(value):
            return self._name(value)
        return _quoted(value) if isinstance(value, str) else repr(value)

    def _call(self, value: Any, depth: int) -> str:
        name = self._name(type(value))
        fields = [
            f"{field.name}={self.code(getattr(value, field.name), depth + 1)}"
            for field in attrs.fields(type(value))
            if field.init and not _is_default(field, getattr(value, field.name))
        ]
        return self._spread(f"{name}(", fields, ")", depth)

    def _spread(self, opened: str, parts: list[str], closed: str, depth: int) -> str:
        """Put parts on one line if they fit, else on one each."""
        one_line = opened + ", ".join(parts) + closed
        if "\n" not in one_line and len(one_line) + 4 * depth <= WIDTH_MAX:
            return one_line
        lines = "".join(f"{INDENT * (depth + 1)}{part},\n" for part in parts)
        return f"{opened}\n{lines}{INDENT * depth}{closed.lstrip(',')}"

    def _name(self, of: Any) -> str:
        self.imports.setdefault(of.__module__, set()).add(of.__qualname__.split(".")[0])
        return of.__qualname__

    def import_lines(self) -> str:
        """Return the imports."""
        return "".join(
            f"from {module} import {', '.join(sorted(names))}\n"
            for module, names in sorted(self.imports.items())
        )


def _quoted(text: str) -> str:
    """Return a literal in double quotes where that is as plain."""
    literal = repr(text)
    return (
        f'"{literal[1:-1]}"' if literal[0] == "'" and '"' not in literal and "\\'" not in literal else literal
    )


def _is_default(field: "attrs.Attribute[Any]", value: Any) -> bool:
    default = field.default
    if isinstance(default, attrs.Factory):
        return not default.takes_self and default.factory() == value
    return default is not attrs.NOTHING and default == value


def pytest_of(failure: Failure, origin: str) -> str:
    """Return a module with one test that fails as long as the scenario does.

    `origin` is the command that gave the scenario from which this one was shrunk.
    """
    source = Source({"sim.scenario": {"run"}})
    scenario = source.code(_bare(failure.scenario))
    words = f"{failure.check}: {failure.message}".replace("\\", "/").replace('"""', "'''")
    return (
        f'"""Shrunk from `{origin}`:\n\n{words}\n"""\n\n{source.import_lines()}\n'
        f"SCENARIO = {scenario}\n\n\n"
        f"def test_{failure.check}_holds_where_it_once_failed():\n"
        f"{INDENT}result = run(SCENARIO)\n"
        f"{INDENT}assert result.violation is None, str(result.violation)\n"
    )


def _bare(scenario: Scenario) -> Scenario:
    return attrs.evolve(scenario, options=attrs.evolve(scenario.options, keep_trace=False))
