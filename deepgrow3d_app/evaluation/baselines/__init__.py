"""What a user has without a network: classical methods that answer the same clicks."""
