"""Writing an answer, and refusing one."""
