"""The built-in benchmark: two domains of street scenes from a seed, laid out as GTA5 and Cityscapes."""

from .domains import CAMERA, GAME, Domain
from .write import GENERATOR_VERSION, Parameters, draw_example, write_benchmark

__all__ = ["CAMERA", "GAME", "GENERATOR_VERSION", "Domain", "Parameters", "draw_example", "write_benchmark"]
