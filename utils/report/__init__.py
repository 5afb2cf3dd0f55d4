"""`python -m utils.report RUN...`: the report of a run, or a comparison of several."""
