"""The training loop, which knows no method, and what it needs: optimisers, counters, checks for non-finite values."""
