"""The methods: what one training iteration computes, with which networks."""
