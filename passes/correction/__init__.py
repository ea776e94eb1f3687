"""The parts of bias correction: what values are on average, and what quantized kernels change of that."""
