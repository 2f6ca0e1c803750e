"""Small trainings with stored losses: a refactoring must not change a number."""
