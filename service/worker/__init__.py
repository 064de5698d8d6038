"""The supervisor, its processes and their launcher. Knows what a kind of job is, and no kind."""
