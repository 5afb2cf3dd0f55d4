"""Loading a trained network, predicting with it, scores and pseudo-labels."""
