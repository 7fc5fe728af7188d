"""The network: its parts, the adapters that train a few of its parameters, and its fast paths."""
