"""Initial mixtures for new tasks, predicted from the record of earlier runs."""
