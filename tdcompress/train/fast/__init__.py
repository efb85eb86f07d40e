"""The fast path of training: all parameters in one vector, and no host read inside an epoch.

It makes the same step as `tdcompress.train.step`, which stays the reference. What the host knows before an epoch (learning rates,
drop rates, numbers of candidates) goes to the device as one table. What the epoch adds up (loss, correct answers, steps that were
not finite) comes back once. On CUDA the whole step is one captured graph.
"""
