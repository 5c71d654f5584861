"""Write docs/dependencies.md: what is installed to serve, under which licence, and why.

    .venv/bin/python docs/dependencies.py

Reasons stand behind the pins of requirements.txt and requirements-no-deps.txt, or above them; what has none is there
because others need it, and which these are is asked of the environment that runs this. Marked for other versions of
Python, a pin is left out.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LISTS = ("requirements.txt", "requirements-no-deps.txt")
WRITTEN = Path(__file__).with_suffix(".md")
NEEDED_BY_OTHERS = ("# What the packages above need in turn", "# Python 3.10: the last versions that support it")

HEAD = """# What is installed to serve, and why

Written by `docs/dependencies.py` from `requirements.txt` and `requirements-no-deps.txt`; a test compares them. Every
package is pinned, with what it needs in turn, so that two installations of one version are the same: the pins were the
newest releases that work together when they were set, and all tests ran on them. `make audit` asks PyPI's database of
vulnerabilities about each of them (pip-audit; needs the internet). For a package with a known one: raise its pin, run
`make test`, and write to the maintainers (`docs/security.md`).

| package | pinned | licence | why |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Pin:
    """A line of a list."""

    name: str
    version: str
    reason: str


def pins() -> Iterator[Pin]:
    """Those that hold for this Python, in the order of their lists."""
    reasons: dict[str, str] = {}  # said once, behind the pin of the newest Python, and good for the others
    for name in LISTS:
        heading = ""
        above: list[str] = []
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                above.append(line.removeprefix("#").strip())
                heading = " ".join(above)
                continue
            if not line.strip():
                above = []
                continue
            above = []
            text, _, comment = line.partition("#")
            requirement = Requirement(text.strip())
            reason = reasons.setdefault(requirement.name, comment.strip())
            if requirement.marker is None or requirement.marker.evaluate():
                in_turn = f"# {heading}" in NEEDED_BY_OTHERS
                yield Pin(
                    requirement.name,
                    str(requirement.specifier).removeprefix("=="),
                    reason or ("" if in_turn else heading),
                )


def needed_by() -> dict[str, list[str]]:
    """Which of the pinned packages ask for a package, by its canonical name."""
    asking: dict[str, list[str]] = defaultdict(list)
    for pin in pins():
        for line in importlib.metadata.requires(pin.name) or []:
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                asking[canonicalize_name(requirement.name)].append(pin.name)
    return asking


def licence_of(name: str) -> str:
    """As its metadata say it."""
    about = importlib.metadata.metadata(name)
    classified = [
        text.rpartition(" :: ")[2] for text in about.get_all("Classifier", []) if text.startswith("License ::")
    ]
    said = about.json.get("license_expression") or ", ".join(classified) or str(about.json.get("license", ""))
    said = str(said).partition("\n")[0]
    return re.sub(r"\s+", " ", said).strip() or "not said"


def page() -> str:
    """The text of docs/dependencies.md."""
    asking = needed_by()
    rows = []
    for pin in sorted(pins(), key=lambda pin: pin.name.lower()):
        others = sorted(set(asking[canonicalize_name(pin.name)]), key=str.lower)
        reason = pin.reason or f"needed by {', '.join(others)}"
        rows.append(f"| {pin.name} | {pin.version} | {licence_of(pin.name)} | {reason} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    WRITTEN.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{WRITTEN.relative_to(ROOT)}\n")
