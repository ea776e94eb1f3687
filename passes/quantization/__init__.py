"""Weight quantizers: grids, the ranges that they span, rounding to them, and their export."""
