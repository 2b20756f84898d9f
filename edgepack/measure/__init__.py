"""Plan launches, drive the runner, and judge what came back."""
