"""The command line: ``deepgrow3d serve | predict | prepare | train | evaluate | compare | model-card``, and
``import-weights | export`` for networks that come from, or go to, other programs of MONAI.

Arguments are parsed here, once, into typed objects; the work is done by the floors below. Heavy imports
happen inside the commands, so that ``--help`` answers at once.
"""

from deepgrow3d_app.cli import evaluate, export, import_weights, predict, prepare, serve, train
from deepgrow3d_app.cli.app import DEFAULT_CHECKPOINT, app, main

__all__ = [
    "DEFAULT_CHECKPOINT",
    "app",
    "evaluate",
    "export",
    "import_weights",
    "main",
    "predict",
    "prepare",
    "serve",
    "train",
]
