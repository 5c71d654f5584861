import dataclasses

import numpy as np
import pytest

from deepgrow3d_app.training.cases import CasePool


def test_the_first_group_has_its_share_and_the_others_the_rest(group):
    groups = [dataclasses.replace(group, name=name) for name in "abc"]
    assert CasePool(groups).shares == pytest.approx([1 / 3] * 3)
    assert CasePool(groups, 0.6).shares == pytest.approx([0.6, 0.2, 0.2])
    assert CasePool(groups[:1], 0.6).shares == pytest.approx([1.0])
    assert CasePool(groups, 1.0).draw(np.random.default_rng(0)) is not None
