"""The parts of HTTP that all routes share: server, middleware, strict route, problems, lists.

Knows no resource.
"""
