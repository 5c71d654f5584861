"""The loop that learns: saved labels in, a better network published, or the reason why not."""
