"""Drills: what is hard to see every day, played on a local stack of their own."""
