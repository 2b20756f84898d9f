"""What a device is and what it does right now."""
