"""`python -m utils.report RUN...`: the report of a run, or a comparison of several."""

import utils.system.machine  # noqa: F401 - before all others
