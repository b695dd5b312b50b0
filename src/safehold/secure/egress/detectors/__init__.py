"""Detectors of a slow leak: baselines, calibration, shapes."""
