"""`qtune sweep`: one recipe over a grid of values, a queue of runs over the local devices."""
