"""What a person sees of a run: log lines, TensorBoard, pictures."""
