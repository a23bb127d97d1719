"""`qtune compare`: methods, or finished runs, side by side on five axes."""
