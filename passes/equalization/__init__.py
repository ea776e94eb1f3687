"""The parts of cross-layer equalization: its arithmetic, which channels belong together, and what is known of their values."""
