"""The use cases, and the only place that knows the order of their steps."""
