"""The results of a sweep: rows of jobs, points averaged over seeds, the best one, tables, charts and estimates."""
