"""Show what a run did, from its own files alone: pictures, pages, card."""
