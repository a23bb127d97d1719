"""From hidden states and labels to a summed loss and a count."""
