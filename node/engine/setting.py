"""One setting of a config.json: read with its type and range, or refused by its name."""

from collections.abc import Mapping


class ModelError(Exception):
    """A model directory that cannot be run. The message is one line; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}\nhint: {hint}")
        self.message = message
        self.hint = hint


def integer(config: Mapping[str, object], name: str, default: int | None = None) -> int:
    """A positive integer below 2^31; `ModelError` if it is something else, or lacks without a default."""
    value = config.get(name)
    value = default if value is None else value
    if type(value) is not int or not 0 < value < 1 << 31:
        raise broken(name, value, "a positive integer")
    return value


def number(config: Mapping[str, object], name: str, default: float | None = None) -> float:
    """A positive number of a size that fp32 holds; `ModelError` otherwise."""
    value = config.get(name)
    value = default if value is None else value
    if type(value) not in (int, float) or not 1e-30 < value < 1e30:  # type: ignore[operator]
        raise broken(name, value, "a positive number")
    return float(value)  # type: ignore[arg-type]


def numbers(config: Mapping[str, object], name: str, count: int) -> tuple[float, ...]:
    """A list of exactly `count` positive numbers; `ModelError` otherwise."""
    value = config.get(name)
    if not isinstance(value, list) or len(value) != count:
        raise broken(name, value, f"a list of {count} positive numbers")
    return tuple(number({name: one}, name) for one in value)


def broken(name: str, value: object, expected: str) -> ModelError:
    """The refusal of a setting: what it is, and what it must be."""
    if value is None:
        return ModelError(f"config.json lacks `{name}`", f"it must be {expected}; download config.json again")
    return ModelError(
        f"config.json sets `{name}` to `{str(value)[:SHOWN]}`",
        f"it must be {expected}; download config.json again",
    )


def unsupported(name: str, value: object, supported: tuple[object, ...]) -> ModelError:
    """The refusal of a setting that would change the arithmetic in a way that is not computed."""
    return ModelError(
        f"config.json sets `{name}` to `{str(value)[:SHOWN]}`, which this engine does not compute",
        f"it runs {' or '.join(f'`{one}`' for one in supported)}; serve this model by an upstream engine",
    )


SHOWN = 200
"""Characters of a value that an error repeats."""
