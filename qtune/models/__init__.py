"""The frozen base: loading, quantising, checking."""
