"""Final training: the chosen config, trained and scored on test."""
