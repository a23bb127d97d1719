"""Parameter-efficient methods, one file each, behind one protocol."""
