"""Who may call, what leaves, and what is written down of it. Each module is one concern; ``serving.server`` puts them
around the routes, outermost first: request id, audit, guard, headers, rates.
"""
