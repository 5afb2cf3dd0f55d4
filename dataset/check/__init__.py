"""Checks of the data: of every file on request (`python -m dataset.check`), and of a sample before every run."""
