"""What this machine will do with a recipe, with reasons, before anything is loaded. No torch."""
