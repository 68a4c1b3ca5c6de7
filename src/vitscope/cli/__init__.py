"""Verbs: from what is typed to functions of the package, no logic."""
