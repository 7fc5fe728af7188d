"""The wing of the command line: each command's options and what it calls; heavy imports wait until it is called."""
