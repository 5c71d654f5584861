"""What talks to a running server over HTTP."""
