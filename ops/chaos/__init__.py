"""Chaos: the deployed local stack while AWS, the providers and its own processes fail at once, and the balance after.

Between the functions and the emulator stands a proxy that lets a share of the AWS calls fail in every way that AWS
calls fail in; the simulated providers fail in theirs; and processes are killed. Signatures stay as they were, so IAM
is enforced all along.
"""
