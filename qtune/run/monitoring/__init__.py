"""What the machine does while a run trains: readings, their means, and what to warn of."""
