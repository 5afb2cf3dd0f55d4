"""The machine: files, processes, signals, precision, messages. Imports no other package of the project."""
