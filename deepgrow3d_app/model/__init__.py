"""From a volume and clicks to a mask: the specification, the network and the region it looks at."""
