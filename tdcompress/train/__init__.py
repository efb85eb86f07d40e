"""Training: data that lives on the device, one loop, optimizers and rates, exact resume."""
