"""Devices and how they are reached, described, provisioned and deployed to."""
