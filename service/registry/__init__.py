"""Models, their versions and aliases, and the proofs of versions. Computes no prediction."""
