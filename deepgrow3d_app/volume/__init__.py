"""A CT or MR in, a mask out: files, grids and orientations. Knows nothing of clicks or networks."""
