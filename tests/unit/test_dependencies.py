"""The list of what is installed, against the pins and this environment."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dependencies():
    spec = importlib.util.spec_from_file_location("dependencies", ROOT / "docs" / "dependencies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dependencies"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["dependencies"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the list is of the pins for Python 3.11")
def test_the_list_is_that_of_the_pins(dependencies):
    written = dependencies.WRITTEN.read_text(encoding="utf-8")
    assert written == dependencies.page(), "run .venv/bin/python docs/dependencies.py"


def test_every_pin_has_a_reason(dependencies):
    asking = dependencies.needed_by()
    assert [pin.name for pin in dependencies.pins() if not (pin.reason or asking[pin.name.lower()])] == []


def test_what_is_installed_is_what_is_pinned(dependencies):
    """But for builds of torch: 2.13.0+cpu is 2.13.0."""
    installed = {pin.name: importlib.metadata.version(pin.name).partition("+")[0] for pin in dependencies.pins()}
    assert installed == {pin.name: pin.version for pin in dependencies.pins()}
