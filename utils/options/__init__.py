"""What the command line says: options, presets, and options that contradict each other."""
