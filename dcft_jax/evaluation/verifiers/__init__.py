"""Pure checks of replies; nothing else of the package is imported."""
