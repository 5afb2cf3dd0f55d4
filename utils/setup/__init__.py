"""Builds data sets, networks and methods from the resolved options."""
