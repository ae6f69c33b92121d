"""The HTTP side: one module a resource, and the small ones that read requests and write answers for them."""
