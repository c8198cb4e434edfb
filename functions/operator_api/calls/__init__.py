"""The calls, by what they are about. Each module has `routes(ports)`, which gives their router."""
