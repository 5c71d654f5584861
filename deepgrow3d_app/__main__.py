"""``python -m deepgrow3d_app`` is the command ``deepgrow3d``."""

from deepgrow3d_app.cli import main

main()
