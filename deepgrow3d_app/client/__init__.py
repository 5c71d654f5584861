"""What talks to a running server over HTTP."""

TOKEN_VARIABLE = "DEEPGROW3D_TOKEN"  # noqa: S105 - its name
"""The variable that holds the token of whoever calls a server. Arguments can be seen by everybody on a machine."""
