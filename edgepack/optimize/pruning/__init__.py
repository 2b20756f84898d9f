"""Single weights and whole channels taken out, and the rest made up for them."""
