"""Who may call, what leaves, and what is written down of it. Each module is one concern; ``around`` puts them
around the routes, outermost first: request id, audit, headers, last resort, origins, callers and their rates, what
pages of other origins may read, upload limit.
"""
