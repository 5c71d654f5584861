"""The REST contract that viewers depend on, a file for each of its first words."""
