"""A model on a device under a protocol -> throughput, and what the device could do at most."""
