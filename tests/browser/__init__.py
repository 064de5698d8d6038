"""Tests of the page in a real browser, as a user operates it."""
