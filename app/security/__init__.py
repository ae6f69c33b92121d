"""Who may do what: principals, their grants, and the one place that decides."""
