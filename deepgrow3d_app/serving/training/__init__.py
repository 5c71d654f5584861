"""Trainings that the server runs: started, watched, stopped, published, and found again after a kill."""
