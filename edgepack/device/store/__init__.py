"""What lies on a device: releases placed, switched, rolled back, taken away, one host at a time."""
