"""The JSON Schema of `nextdeploy.yml`, from the schema that checks it: `python -m ndactors.core.jsonschema`."""

from __future__ import annotations

import json
from typing import Any

from .fields import block_schema
from .schema import Server

TITLE = "nextdeploy.yml"


def json_schema() -> dict[str, Any]:
    """Draft 2020-12. Editors complete from it; rules that span several keys are the daemon's own."""
    body = {**block_schema(Server()), "type": "object"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": TITLE, **body}


def text() -> str:
    return json.dumps(json_schema(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(text())
