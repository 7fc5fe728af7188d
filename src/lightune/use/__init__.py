"""A finished run put to use: answers for texts, files and streams."""
