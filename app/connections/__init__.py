"""Connections as the server holds them: what one may send and take, before there is a request."""
