"""From files to batches: what the user typed, which columns, which splits, which tokens."""
