"""How fast Landline is, beside servers that do the same work: `python -m benchmarks`. See docs/how-fast.md."""
