"""What is selected, dropped and pruned: pure functions on tensors, shared by training and pruning."""
