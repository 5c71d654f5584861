"""The only folder that imports MONAI Label, FastAPI or Starlette.

Whoever imports a module of this folder gets here first, so MONAI Label can be imported in all of them.
"""

from deepgrow3d_app.serving.compatibility import prepare_imports

prepare_imports()
