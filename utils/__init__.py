"""Everything around the networks: options, files, logs, the training loop."""
