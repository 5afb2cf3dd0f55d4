"""The command line: options, presets, and checks for options that contradict each other."""
