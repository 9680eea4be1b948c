"""The paper's printed numbers and claims, and whether they were reproduced."""
