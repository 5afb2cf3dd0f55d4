"""Is the data as it should be? All of it before a long run (`python -m dataset.check`), a sample before every run."""
