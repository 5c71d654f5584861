"""Pre-annotation: masks for many images at once, from clicks that are known beforehand."""
