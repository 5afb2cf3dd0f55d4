"""The loss terms, one per file: pure functions of tensors, and the small states that some of them need."""
