"""Drills: what happens when a part of AWS itself fails, played on a local stack of their own."""
