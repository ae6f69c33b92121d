"""What the bridge tells Prometheus: counts and states, never a topic, a filter or a name of a caller.

Nothing here is called where messages are carried. The parts count in whole numbers of their own, and a
collector reads these when somebody asks. docs/operating.md says what each metric means.
"""
