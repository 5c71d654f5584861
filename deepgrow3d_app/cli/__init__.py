"""The command line: ``deepgrow3d serve | ohif | predict | prepare | train | evaluate | compare | model-card``, and
``average | join | import-weights | export | versions | rollback`` for networks, ``retrain | batch`` for a running
server, and ``token`` for who may call it.

Arguments are parsed here, once, into typed objects; the work is done by the floors below. Heavy imports
happen inside the commands, so that ``--help`` answers at once.
"""

from deepgrow3d_app.cli import (
    average,
    evaluate,
    export,
    import_weights,
    join,
    ohif,
    predict,
    prepare,
    retrain,
    serve,
    token,
    train,
    versions,
)
from deepgrow3d_app.cli.app import DEFAULT_CHECKPOINT, app, main

__all__ = [
    "DEFAULT_CHECKPOINT",
    "app",
    "average",
    "evaluate",
    "export",
    "import_weights",
    "join",
    "main",
    "ohif",
    "predict",
    "prepare",
    "retrain",
    "serve",
    "token",
    "train",
    "versions",
]
