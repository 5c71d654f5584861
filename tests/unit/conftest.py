import os

import pytest
import torch
from hypothesis import settings

# Examples are small, machines busy: a slow one is no fault.
settings.register_profile("unit", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000, derandomize=False)
settings.load_profile("long" if os.environ.get("DEEPGROW3D_FUZZ") else "unit")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """On networks of a few thousand weights, threads cost more than they give."""
    torch.set_num_threads(1)
