"""Folding an adapter into full weights, shard by shard."""
