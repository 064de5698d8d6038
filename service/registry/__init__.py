"""Models, their versions and aliases, and whether a version is verified. Computes no prediction."""
