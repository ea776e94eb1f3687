"""What `fold-batch-norms` is made of: its arithmetic, the places where a batch norm meets a linear layer, and the ways between them."""
