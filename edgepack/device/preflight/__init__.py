"""What stands in the way of a deployment, found before anything is sent."""
