"""The queue, leases, life and events of any kind of job. Knows no kind."""
