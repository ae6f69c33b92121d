"""The documents that say what is promised: OpenAPI and AsyncAPI, made from the running code."""
