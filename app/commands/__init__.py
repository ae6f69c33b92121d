"""The command line: one module a group of commands, over ``terminal`` that they share."""
