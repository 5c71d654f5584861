"""How good the clicks are: the protocol, the scores, and what a user would have without a network."""
