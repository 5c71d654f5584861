"""Clicks, the maps that show them to a network, and an annotator that can be simulated."""
