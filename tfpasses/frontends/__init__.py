"""Where TensorFlow lives: reading models into graphs, writing graphs as models, running graphs."""
