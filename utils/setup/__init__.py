"""From resolved options to data sets, networks and methods."""
