"""A model directory whose chat template can be made to run for ever."""

import json
from pathlib import Path

MODEL = Path(__file__).parents[3] / "node" / "models" / "ember-py"

TEMPLATE = (
    "{% for message in messages %}{% if 'spin' in message.content %}{% set l = message.content|list %}"
    "{% for a in l %}{% for b in l %}{% for c in l %}{% for d in l %}{% for e in l %}"
    "{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endif %}"
    "{{ message.content }}{% endfor %}"
)
SPIN = json.dumps({"messages": [{"role": "user", "content": "spin" * 250}]})


def write(directory: Path) -> Path:
    """Make `directory` the embedded model with that template."""
    for path in MODEL.iterdir():
        if path.name != "tokenizer_config.json":
            (directory / path.name).symlink_to(path)
    configured = json.loads((MODEL / "tokenizer_config.json").read_text()) | {"chat_template": TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(configured))
    return directory
