import pytest
import torch
from hypothesis import settings

# Examples are small, machines busy: a slow one is no fault.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """On networks of a few thousand weights, threads cost more than they give."""
    torch.set_num_threads(1)
