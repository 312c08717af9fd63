"""The three trainings: one step, three loss functions."""
