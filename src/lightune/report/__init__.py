"""Show what a run did, from its results.json alone: pictures, page, card."""
