"""Mistakes that must not go unnoticed: each is made in a copy of the code, and the proof that should see it is run.

`python -m tests.mutants` is what `make mutants` runs. The list is `tests/mutants/catalog.py`.
"""
