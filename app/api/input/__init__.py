"""Reading a request: its path, query, headers and body, each strictly."""
