"""What a run leaves behind, and why it can be trusted."""
