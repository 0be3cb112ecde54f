"""Data: interactions, their processed form and the negatives of each user."""
