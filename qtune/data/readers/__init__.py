"""One reader a kind of file: each yields rows and records what it cannot read."""
