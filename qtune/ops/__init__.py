"""Tensors in, tensors out: NF4 and the loss head."""
