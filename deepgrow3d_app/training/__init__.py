"""From labelled cases to a checkpoint."""
