"""One file for each way in which labelled cases are laid out on disk.

Each has a function ``find_...(folder) -> list[CaseSource] | None``: None where the folder is laid out otherwise.
"""
