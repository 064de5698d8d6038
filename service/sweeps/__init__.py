"""Sweeps: many runs that differ in chosen fields, their steering, and their leaderboard."""
