"""The supervisor, the processes of attempts, and their launcher. Knows `Kind`, and no kind."""
