"""The card of an adapter or a merged model: README.md with the front matter the hubs read."""

from typing import Any

from xinglin import __version__, hub, schema
from xinglin.config import Recipe


def adapter_card(recipe: Recipe, facts: dict[str, Any]) -> str:
    """Markdown with YAML front matter; ``facts`` are those of the train stage."""
    rows = "\n".join(f"| {key.replace('_', ' ')} | {_cell(value)} |" for key, value in facts.items())
    settings = "\n".join(f"{key}: {value}" for key, value in recipe.train.model_dump(mode="json").items())
    name, revision = hub.split_revision(recipe.model)
    version = f" (revision `{revision}`)" if revision else ""
    whole = recipe.train.method == "full"
    what = "All weights of" if whole else "An adapter for"
    return f"""---
base_model: {name}
library_name: {"transformers" if whole else "peft"}
language: [zh]
pipeline_tag: text-generation
tags: [medical, {recipe.train.method}, xinglin]
---
# {recipe.name}

{what} `{name}`{version}, tuned with Xinglin {__version__}. It answers Chinese medical
questions in three sections: {"、".join(schema.TITLES)}.

**Intended use**: research and teaching, and drafts that a qualified person reads. **Not for**: diagnosis, prescriptions,
emergencies, or any decision about a patient without a doctor. Tuning teaches the form of an answer; it does not add medical
knowledge, and the answers can be wrong. {schema.DISCLAIMER}

| | |
|---|---|
{rows}

Recipe of the stage:

```yaml
seed: {recipe.seed}
{settings}
```
"""


def _cell(value: Any) -> str:
    """A fact in a table: the parts of one that has names are listed."""
    return ", ".join(f"{name} {part}" for name, part in value.items() if part) if isinstance(value, dict) else str(value)
