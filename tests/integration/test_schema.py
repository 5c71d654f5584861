"""Requests drawn from the API's own description: every answer is one that it names, and none is a failure of ours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from deepgrow3d_app.serving.compatibility import prepare_imports

if TYPE_CHECKING:
    from tests.integration.launcher import Server
    from tests.integration.phantom import Phantom

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXAMPLES = 20
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]


def every_route() -> dict[str, Any]:
    """The description of every route, also of those that the published one leaves out."""
    prepare_imports()
    from deepgrow3d_app.serving.routes import ohif
    from deepgrow3d_app.serving.server import ROUTES, include_routes

    api = FastAPI(title="every route", version="1")
    with pytest.MonkeyPatch.context() as patch:
        for router in (*(module.router for module in ROUTES), ohif.router):
            patch.setattr(router, "include_in_schema", True)
            for route in router.routes:
                patch.setattr(route, "include_in_schema", True)
        include_routes(api)
        return api.openapi()


schema = schemathesis.openapi.from_dict(every_route())


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Iterator[Server]:
    """A server of which nothing is needed afterwards."""
    from tests.integration.conftest import ROOT
    from tests.integration.launcher import Launcher

    launcher = Launcher(tmp_path_factory.mktemp("schema") / "files")
    launcher.folder.mkdir()
    studies = launcher.folder / "studies"
    studies.mkdir()
    for name in ("a", "b", "c"):
        shutil.copy(phantom.file, studies / f"{name}.nii.gz")
    checkpoint = launcher.folder / "served.safetensors"
    shutil.copy(ROOT / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors", checkpoint)
    yield launcher.serve(studies, "--checkpoint", str(checkpoint))
    launcher.end_all()


@schema.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
def test_every_answer_is_one_that_the_description_names(case: schemathesis.Case[Any], target: Server) -> None:
    case.call_and_validate(base_url=target.url, checks=CHECKS, timeout=60)
