"""tfpasses: a declarative graph-rewrite pass framework for TensorFlow and Keras 3."""
