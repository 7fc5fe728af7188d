"""What is wrong with labelled text, found before anybody learns from it."""
