"""What raising the operations of a `tf.Graph` is made of: rules by what they raise to."""
