"""What pruning does to the loss, to second order: section 5.1 of the papers."""
