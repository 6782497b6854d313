"""Training: state, one step, the loop, optimizer, moving averages and checkpoints."""
