"""The wing of `lightune compare`: which recipes are run, each in its own process, and what may be said of them."""
