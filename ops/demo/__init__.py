"""The demo: the whole stack on this machine, real signatures, simulated providers that fail, and a verdict per scene."""
