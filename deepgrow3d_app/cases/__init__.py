"""Labelled cases on disk, however they are laid out: for training and for evaluation. Knows nothing of networks."""
