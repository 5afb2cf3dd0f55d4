"""The training loop, which knows no method, and what it needs: optimisers, counters, a watch for bad numbers."""
