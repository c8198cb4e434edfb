"""The demo: the whole stack on this machine, real signatures, failing providers, and a verdict per scene."""
