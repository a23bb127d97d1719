"""The recipe language: YAML to a frozen, fully checked Recipe. No torch."""
