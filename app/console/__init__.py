"""The console's page: HTML, CSS and JavaScript as they are served, with no build step."""
