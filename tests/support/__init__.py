"""What the tests run against: real brokers on loopback, certificates, and a proxy that makes faults."""
