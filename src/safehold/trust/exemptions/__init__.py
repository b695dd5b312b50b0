"""Exemptions: vetted subjects get a gentler action on named clauses, never less scoring."""
