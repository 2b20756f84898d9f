"""What is to be done to a float model, as values that travel with the result."""
