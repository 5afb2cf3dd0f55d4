"""The networks: the segmenter with its backbones and layers, and the discriminators."""
