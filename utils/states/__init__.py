"""Files of weights and of training states."""

import utils.system.machine  # noqa: F401 - before all others
