"""The machine: files, processes, signals, precision, messages. Imports nothing else of the project."""
