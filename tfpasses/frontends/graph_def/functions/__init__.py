"""The functions of a GraphDef: what they give, and their bodies as nodes in place of a call."""
