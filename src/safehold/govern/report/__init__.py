"""The safeguards report: a case of claims over evidence, judged, lowered to a level, rendered."""
