"""Names of models and where they lie: the embedded one, or a directory that the operator names."""

from pathlib import Path

import attrs

from node.configure import SettingsError

EMBEDDED = "ember-py"
"""The model in the package."""

TOY = "toy"
"""A deterministic engine without a model, for demonstrations and tests of the mesh itself."""


@attrs.frozen
class ModelPath:
    """A model to serve."""

    name: str
    """As clients spell it."""
    directory: str
    """In Hugging Face layout; `toy` for the toy."""


def resolve(models: tuple[str, ...]) -> tuple[ModelPath, ...]:
    """Find the models that were asked for. Raises SettingsError if two share a name."""
    found: dict[str, ModelPath] = {}
    for model in map(_resolve, models):
        if model.name in found:
            raise SettingsError(f"two models are called `{model.name}`", "name each directory differently")
        found[model.name] = model
    return tuple(found.values())


def _resolve(word: str) -> ModelPath:
    if word == TOY:
        return ModelPath(TOY, TOY)
    if word == EMBEDDED:
        return ModelPath(EMBEDDED, str(Path(__file__).parent / EMBEDDED))
    path = Path(word).expanduser().resolve()
    return ModelPath(path.name, str(path))
