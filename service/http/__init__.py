"""HTTP as all routes share it: server, middleware, strict route, problems, idempotency, lists.

Knows no resource.
"""
