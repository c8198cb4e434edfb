"""The operator API: every call under `/platform` (architecture §11). Long work is replay λ's."""
