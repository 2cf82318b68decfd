"""What each key has used of each model, day by day."""
