"""Command lines, one file each, imported lazily."""
