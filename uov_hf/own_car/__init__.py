"""Recordings of one's own car: calibration, lenses, trajectory, and the calibration check."""
