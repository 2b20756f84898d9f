"""What is sent to the device: self-contained programs that emit JSON lines."""
