"""The JSON Schema of a configuration file, for editors; derived from the structs of :mod:`nous.config.settings`."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from nous.config.settings import Settings

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def settings_schema() -> dict[str, Any]:
    """Return the schema of a file's content as YAML reads it: every key is optional, none but these may stand there."""
    (root,), definitions = msgspec.json.schema_components([Settings], ref_template="#/$defs/{name}")
    return {"$schema": DIALECT, "title": "nous configuration", **root, "$defs": definitions}
