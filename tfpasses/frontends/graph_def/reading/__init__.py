"""NodeDefs as nodes: who reads whom, loops, constants, and what is known of values without running TensorFlow."""
