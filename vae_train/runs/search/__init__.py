"""Searches: sweeps whose settings are chosen by Optuna while they run."""
