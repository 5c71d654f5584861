"""The command line: ``deepgrow3d serve | predict | prepare | train | evaluate | compare | model-card``.

Arguments are parsed here, once, into typed objects; the work is done by the floors below. Heavy imports
happen inside the commands, so that ``--help`` answers at once.
"""

from deepgrow3d_app.cli import evaluate, predict, prepare, serve, train
from deepgrow3d_app.cli.app import DEFAULT_CHECKPOINT, app, main

__all__ = ["DEFAULT_CHECKPOINT", "app", "evaluate", "main", "predict", "prepare", "serve", "train"]
