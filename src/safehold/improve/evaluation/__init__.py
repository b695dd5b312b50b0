"""Evaluation: a bundle measured on labelled data that it was not made from."""
