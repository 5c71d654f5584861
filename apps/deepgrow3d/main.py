"""What `monailabel start_server --app apps/deepgrow3d` loads."""

from deepgrow3d_app.serving.app import DeepGrow3DApp

__all__ = ["DeepGrow3DApp"]
