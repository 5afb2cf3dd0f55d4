"""Everything around the networks: options, files, logs, the training loop."""

import os

# Must be set before torch starts. Idle threads that spin make every process beside them many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
