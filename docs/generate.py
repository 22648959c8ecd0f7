"""Write the pages that are made from the code: docs/cli.md and the two schemas.

    python docs/generate.py            (or: make docs)

A test compares what stands here with what this would write.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from msc_edge.kit.manifest import manifest_schema
from msc_edge.runtime.stream.events import event_schema
from msc_edge.runtime.tools.evaluate.evaluation import Evaluation

DOCS = Path(__file__).resolve().parent
COMMANDS = (
    *(
        "",
        "demo",
        "train",
        "export",
        "score",
        "info",
        "verify",
        "evaluate",
        "calibrate",
        "stream",
        "reload",
        "doctor",
        "bench",
        "distil",
    ),
    "benchmark one-vs-rest",
)


def cli_page() -> str:
    """The command line, as `--help` tells it."""
    environment = os.environ | {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    parts = ["# The command line\n\nMade by `make docs` from `--help`; do not edit.\n"]
    for command in COMMANDS:
        arguments = [*command.split(), "--help"]
        shown = subprocess.run(
            [sys.executable, "-m", "msc_edge", *arguments], capture_output=True, check=True, env=environment
        )
        lines = [line.rstrip() for line in shown.stdout.decode().replace("python -m msc_edge", "msc-edge").splitlines()]
        title = " ".join(["msc-edge", *command.split()])
        text = "\n".join(lines).strip("\n")
        parts.append(f"\n## {title}\n\n```text\n{text}\n```\n")
    return "".join(parts)


def evaluation_schema() -> str:
    """The JSON schema of evaluation.json, as text."""
    return json.dumps(Evaluation.model_json_schema(mode="serialization"), indent=2) + "\n"


PAGES = {
    "evaluation.schema.json": evaluation_schema,
    "cli.md": cli_page,
    "event.schema.json": event_schema,
    "manifest.schema.json": manifest_schema,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
